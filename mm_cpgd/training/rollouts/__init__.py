"""Completions of a rollout batch: their seeds, environments, scores, statistics and records."""
