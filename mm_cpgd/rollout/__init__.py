"""Sampling completions from the policy."""

from mm_cpgd.rollout.engine import Completion, Group, RolloutEngine, Sampling
from mm_cpgd.rollout.local import LocalEngine

__all__ = ["Completion", "Group", "LocalEngine", "RolloutEngine", "Sampling"]
