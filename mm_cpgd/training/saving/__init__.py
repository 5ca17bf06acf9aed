"""Saving of a run: checkpoints by one process or by all, and the state that is in shards."""
