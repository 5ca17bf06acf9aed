"""Settings of changed pictures: what ``algorithm.blind`` compares log-probabilities with."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class BlindConfig(BaseModel):
    """How pictures are changed for the parts and metrics that compare (``docs/algorithms.md``)."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    picture: Literal["mask", "blank", "shuffle", "noise"] = Field(
        "mask",
        description="patches blackened at random, one colour, patches in another order, or Gaussian noise",
    )
    share: float = Field(0.6, gt=0, le=1, description="mask: probability that a patch is blackened")
    steps: int = Field(500, ge=1, lt=1000, description="noise: diffusion steps, of 1000")
