"""Checks before a run: the plan (``--dry-run``), its memory, and the data."""
