"""Conversations of several turns: observations as tokens, and rows that hold them."""
