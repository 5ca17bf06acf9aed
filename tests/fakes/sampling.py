"""Short samples of the local engine."""

from __future__ import annotations

from typing import Any

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Completion, Group, LocalEngine, Sampling

MANY_ENDS = list(range(100, 160))


def sampled(
    policy: Policy, prompts: list[EncodedPrompt], seeds: list[list[int]], **options: Any
) -> list[Group]:
    return LocalEngine(policy).generate(prompts, Sampling(**{"max_new_tokens": 12, **options}), seeds)


def flat(groups: list[Group]) -> list[Completion]:
    return [completion for group in groups for completion in group]
