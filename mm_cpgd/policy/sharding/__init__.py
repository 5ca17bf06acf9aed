"""Weights, gradients and optimizer state in shards over the processes of a run (FSDP2)."""
