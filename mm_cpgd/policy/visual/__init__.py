"""Attention of vision towers, and videos: their frames, and the positions of their tokens."""
