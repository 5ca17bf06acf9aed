"""Evaluation: answers from a model, scored and summed up."""

from eval.heldout import HeldOut, summarise

__all__ = ["HeldOut", "summarise"]
