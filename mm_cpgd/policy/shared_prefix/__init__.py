"""Shared-prefix training: each prompt is run once for all its completions, with exact gradients."""
