"""Settings of changed pictures: what ``algorithm.blind`` compares log-probabilities with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mm_cpgd.config.section import Section


class BlindConfig(Section):
    """How pictures are changed for the parts and metrics that compare (``docs/algorithms.md``)."""

    picture: Literal["mask", "blank", "shuffle", "noise"] = Field(
        "mask",
        description="patches blackened at random, one colour, patches in another order, or Gaussian noise",
    )
    share: float = Field(0.6, gt=0, le=1, description="mask: probability that a patch is blackened")
    steps: int = Field(500, ge=1, lt=1000, description="noise: diffusion steps, of 1000")


class NoisyConfig(Section):
    """Half of each prompt's completions sampled behind a noised picture, as in NoisyRollout."""

    steps: int = Field(500, ge=1, lt=1000, description="noise at the start: diffusion steps, of 1000")
    middle: float = Field(40, gt=0, description="iteration at which half of them are left")
    steepness: float = Field(30, gt=0, description="how suddenly they fade: λ of the sigmoid")
