"""Draws from whole token distributions: how many a part asks for, and what it gets of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mm_cpgd.algorithms.inputs.schedules import options_at

if TYPE_CHECKING:
    from mm_cpgd.algorithms.parts import Part

DRAWN = frozenset({"drawn_logprobs", "drawn_own"})
"""Names of the inputs of parts that declare ``draws``."""


@dataclass(frozen=True)
class Draws:
    """Tokens to be drawn at every position of the completions.

    Attributes:
        count: K, tokens of each position.
        temperature: by which the logits of π are divided for the draws, and only for them.
    """

    count: int
    temperature: float


class Drawn(NamedTuple):
    """Tokens that were drawn at every position, without what they are.

    Attributes:
        logprobs: (n, T, K) log π of the drawn tokens, with gradient.
        own: (n, T, K) bool, whether the drawn token is the completion's own.
    """

    logprobs: Tensor
    own: Tensor


def draws_of(part: Part, progress: float = 0.0) -> Draws | None:
    """Return what the part asks for, at this share of the run; None if it asks for no draws."""
    names = part.description.draws
    if names is None:
        return None
    options = options_at(part.options, progress)
    return Draws(int(options[names[0]]), float(options[names[1]]))


def drawn_inputs(drawn: Drawn | None, mask: Tensor) -> dict[str, Any]:
    """Return the inputs of parts by name, with 0 at masked positions; {} where nothing was drawn."""
    if drawn is None:
        return {}
    dtype = torch.promote_types(drawn.logprobs.dtype, torch.float32)
    counted = mask.unsqueeze(2)
    clean = torch.where(counted, drawn.logprobs.to(dtype), torch.zeros((), dtype=dtype, device=mask.device))
    return {"drawn_logprobs": clean, "drawn_own": drawn.own & counted}
