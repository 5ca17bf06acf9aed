"""Scoring of responses: protocols, LLM judge, summaries, statistics."""
