"""Rollout engines: sampling of completions from the policy, by the policy itself or by vLLM."""

from mm_cpgd.policy.distribution import KeptTokens, Sampling
from mm_cpgd.rollout.engine import Completion, Group, RolloutEngine
from mm_cpgd.rollout.gathered import GatheredEngine
from mm_cpgd.rollout.local import LocalEngine

__all__ = ["Completion", "GatheredEngine", "Group", "KeptTokens", "LocalEngine", "RolloutEngine", "Sampling"]
