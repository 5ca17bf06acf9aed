"""Scoring of answers: protocols, LLM judge, summaries, statistics."""
