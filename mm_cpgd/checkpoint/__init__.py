"""Checkpoints: folders that are complete or absent, and serialization without pickle."""
