"""Rollout engines: sampling of completions from the policy, by the policy itself or by vLLM."""

from mm_cpgd.policy.distribution import KeptTokens, Sampling
from mm_cpgd.rollout.engine import Completion, Group, RolloutEngine
from mm_cpgd.rollout.gathered import GatheredEngine
from mm_cpgd.rollout.local import LocalEngine
from mm_cpgd.rollout.parts import GroupsInParts

__all__ = [
    "Completion",
    "GatheredEngine",
    "Group",
    "GroupsInParts",
    "KeptTokens",
    "LocalEngine",
    "RolloutEngine",
    "Sampling",
]
