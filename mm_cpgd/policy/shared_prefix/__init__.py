"""Shared-prefix training: each prompt is computed once for all its completions, with exact gradients."""
