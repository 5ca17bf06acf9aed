"""An engine beside the policy whose log-probabilities differ from the policy's by known amounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Group, LocalEngine, Sampling


class Shifted:
    """Samples as the local engine does, and reports ln π + sin(token) / 2."""

    def __init__(self, local: LocalEngine) -> None:
        self.local = local

    def load_weights(self, policy: Policy) -> None:
        self.local.load_weights(policy)

    def release(self) -> None:
        self.local.release()

    def close(self) -> None:
        pass

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        return [
            [replace(one, logprobs=one.logprobs + one.tokens.sin() / 2) for one in group]
            for group in self.local.generate(prompts, sampling, seeds)
        ]


def shift_logprobs() -> None:
    """Make every run of this process sample by ``Shifted``."""
    from mm_cpgd.training import run

    def build(config: Any, accelerator: Any, placed: Any, *more: Any) -> Any:
        return Shifted(LocalEngine(placed.policy, config.rollout.batch_prompts))

    run.build_engine = build  # type: ignore[assignment]
