"""Adapters between environments of this project and those of other trainers. None of them is imported."""
