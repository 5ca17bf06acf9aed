"""Completions beside the rollouts: of other sources, of earlier iterations, of given beginnings."""
