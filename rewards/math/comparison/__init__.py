"""Comparison of parsed answers: trees, items, lists, sets of numbers."""
