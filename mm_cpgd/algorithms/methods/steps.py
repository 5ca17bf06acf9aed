"""Credit by step: parts of a completion weighed by how certain the policy was in them.

Parts of the kind ``token_advantages``, whose inputs ``mm_cpgd/algorithms/token_advantages.py`` describes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.part_info import described

EPS = 1e-8
# Entropies of a pass in float32 are exact to a few 1e-6 nats, depending on what else is in the micro-batch.
SMALLEST_RANGE = 1e-3


@described(
    "A ← A·g + {zeta}·f of the next step, less the batch's mean; g = e^(−{k}·h) / mean over steps of it, "
    "f = e^(−{k_future}·h), h the step's mean entropy under π_old, scaled to 0 to 1 over the batch's steps",
    source="EMPG, arXiv 2509.09265, and the routine on its page",
    use="several turns, or reasoning in sections; sharpens what is sure, and explores less",
    differs=(
        "The authors' steps are the turns of an agent. Here turns are steps too, and a turn can be divided "
        "further: at marks such as </think>, or into blocks of tokens. For theirs set steps to turns.",
        "The authors subtract the batch's mean advantage and do not state over what. Here it is over tokens; "
        "for the mean over steps set centre to steps.",
        "The authors divide by the range of the entropies plus 1e-8. Here one below 0.001 nats counts as "
        "0.001: it is mostly rounding, which would be scaled up to 0 to 1. No setting does this.",
    ),
)
def empg(
    advantages: Tensor,
    base_advantages: Tensor,
    old_entropy: Tensor,
    tokens: Tensor,
    mask: Tensor,
    prompt_of: Tensor,
    pieces: Mapping[int, str],
    *,
    k: float = 1.0,
    k_future: NonNegativeFloat = 1.0,
    zeta: NonNegativeFloat = 0.1,
    steps: Literal["turns", "marks", "blocks"] = "turns",
    marks: tuple[str, ...] = ("</think>",),
    block: PositiveInt = 64,
    centre: Literal["tokens", "steps"] = "tokens",
    bonus_without_signal: bool = True,
) -> Tensor:
    """Scale a step's advantage up where the policy was sure, down where not, and pay for a sure next step.

    Wrong steps that were sure are pushed down hardest. The last step of a completion has no bonus. A constant
    added to all entropies, or a common factor, changes nothing. Where all steps are equally sure g = f = 1.
    The scaling makes an error δ of the entropies one of about δ by their range in the advantages: with the
    4e-6 nats of float32, 1e-4 where the steps differ by 0.02 nats, as those of an untrained policy do.

    Args:
        advantages: (N, T).
        base_advantages: (N, T), which tell the groups that have a signal.
        old_entropy: (N, T), nats.
        tokens: (N, T) ids.
        mask: (N, T).
        prompt_of: (N,).
        pieces: text of each token id, for ``marks``.
        k: strength of the scaling; below 0 it is turned around, as a control.
        k_future: the same of the bonus.
        zeta: weight of the bonus; the authors' agents take 0.05, their routine 0.1.
        steps: where a turn's steps end besides at its end: nowhere, after a mark, or after ``block`` tokens.
        marks: texts that end a step, with the token in which they are complete; no spaces at their ends.
        block: tokens of a step.
        centre: what the mean that is subtracted counts.
        bonus_without_signal: whether groups whose advantages are all 0 get the bonus too, as published.

    Returns:
        (N, T).
    """
    if not mask.any():
        return advantages
    step_of, completion = _steps(tokens, mask, pieces, steps, marks, block)
    own = step_of[mask]
    sizes = torch.bincount(own).to(old_entropy)
    entropy = torch.bincount(own, weights=old_entropy[mask]).to(old_entropy) / sizes
    lowest = entropy.min()
    scaled = (entropy - lowest) / (entropy.max() - lowest).clamp(min=SMALLEST_RANGE)
    gain = torch.exp(-k * scaled)
    gain = gain / (gain.mean() + EPS)
    bonus = _of_next(torch.exp(-k_future * scaled), completion)
    if not bonus_without_signal:
        bonus = bonus * _has_signal(base_advantages, mask, prompt_of)[completion]
    found = advantages[mask] * gain[own] + zeta * bonus[own]
    weights = torch.ones_like(found) if centre == "tokens" else 1 / sizes[own]
    result = torch.zeros_like(advantages)
    result[mask] = found - (weights * found).sum() / weights.sum()
    return result


def _steps(
    tokens: Tensor, mask: Tensor, pieces: Mapping[int, str], steps: str, marks: Sequence[str], block: int
) -> tuple[Tensor, Tensor]:
    """Return each token's step (N, T), from 0 over the batch, and the completion of each step (S,)."""
    previous = torch.zeros_like(mask)
    previous[:, 1:] = mask[:, :-1]
    begins = mask & ~previous
    if steps == "blocks":
        begins |= mask & (_place_in_turn(mask, begins) % block == 0)
    elif steps == "marks":
        ends = torch.stack(
            [marked_ends(row, own, pieces, marks) for row, own in zip(tokens, mask, strict=True)]
        )
        begins[:, 1:] |= mask[:, 1:] & ends[:, :-1]
    step_of = begins.flatten().long().cumsum(0).view(mask.shape) - 1
    return step_of, begins.nonzero()[:, 0]


def _place_in_turn(mask: Tensor, begins: Tensor) -> Tensor:
    """Return each token's place in its turn, from 0, (N, T); of use where ``mask`` is True."""
    place = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    start = torch.where(begins, place, torch.zeros_like(place)).cummax(1).values
    return place - start


def marked_ends(tokens: Tensor, mask: Tensor, pieces: Mapping[int, str], marks: Sequence[str]) -> Tensor:
    """Return (T,) bool: tokens of one completion in which a mark becomes complete.

    A mark may be spread over several tokens of a turn.
    """
    ends = torch.zeros_like(mask)
    longest = max(map(len, marks), default=1)
    read = ""
    for place, (token, own) in enumerate(zip(tokens.tolist(), mask.tolist(), strict=True)):
        read = read + pieces[token] if own else ""
        if any(mark in read for mark in marks):
            ends[place] = True
            read = ""
        # Enough for a mark that has begun.
        read = read[-longest:]
    return ends


def _of_next(values: Tensor, completion: Tensor) -> Tensor:
    """Return each step's value of the next step of the same completion, 0 for the last, (S,)."""
    following = torch.zeros_like(values)
    same = completion[1:] == completion[:-1]
    following[:-1] = torch.where(same, values[1:], torch.zeros_like(values[1:]))
    return following


def _has_signal(base_advantages: Tensor, mask: Tensor, prompt_of: Tensor) -> Tensor:
    """Return (N,) 1 for completions of groups of which some advantage is not 0, else 0."""
    moved = ((base_advantages != 0) & mask).any(1)
    groups = torch.zeros(int(prompt_of.max()) + 1, dtype=base_advantages.dtype)
    groups[prompt_of[moved]] = 1.0
    return groups[prompt_of]
