"""Rollouts of which half see a noised picture: NoisyRollout (arXiv 2504.13055)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.visual.changed import PictureChange, PixelScale, changed_prompt
from mm_cpgd.rollout.engine import Group, RolloutEngine, WrappedEngine, in_halves


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise that fades out over the run.

    Attributes:
        steps: of 1000 diffusion steps, without fading.
        middle: iteration at which half of them are left.
        steepness: λ; the larger, the more sudden.
        iterations: of the whole run.
    """

    steps: int
    middle: float
    steepness: float
    iterations: int

    def at(self, iteration: int) -> int:
        """Return the steps in an iteration: ⌊steps·(1 − σ(λ·(t − middle) / T))⌋, as in the authors' code."""
        late = self.steepness * (iteration - self.middle) / self.iterations
        return int(self.steps * (1 - 1 / (1 + math.exp(-late))))


def behind_noise(
    engine: RolloutEngine, policy: Policy, schedule: NoiseSchedule | None, iteration: int
) -> RolloutEngine:
    """Return the engine, with the iteration's noise if there is a schedule."""
    return engine if schedule is None else NoisyEngine(engine, policy, schedule.at(iteration))


class NoisyEngine(WrappedEngine):
    """Samples the second half of each prompt's completions behind a noised picture.

    Both halves are one group, scored and compared together, and the policy learns from both behind the clean
    picture: the prompts themselves do not change. The noise of a prompt is drawn by the first of its seeds.

    Args:
        engine: samples from encoded prompts.
        policy: its processor tells the scale of pixels.
        steps: of the noise, 0: none.
    """

    def __init__(self, engine: RolloutEngine, policy: Policy, steps: int) -> None:
        super().__init__(engine)
        self.steps = steps
        self.scale = PixelScale.of(policy.processor, policy.model)

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``; every prompt needs an even number of seeds."""
        change = PictureChange("noise", steps=self.steps)
        pairs, halves = [], []
        for prompt, clean, noisy in zip(prompts, *in_halves(seeds), strict=True):
            pairs += [prompt, changed_prompt(prompt, change, self.scale, f"noise/{clean[0]}")]
            halves += [clean, noisy]
        groups = self.engine.generate(pairs, sampling, halves)
        return [[*clean, *noisy] for clean, noisy in zip(groups[::2], groups[1::2], strict=True)]
