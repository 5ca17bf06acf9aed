"""Advantages by token: what is computed from those of completions once the old policy's entropies are known.

A part takes any of the inputs below, of all N completions of the iteration over all processes in the order of
the draws, and returns advantages (N, T). Several parts are applied in the order in which they stand; each
gets as ``advantages`` what those before it returned. Values where ``mask`` is False are ignored.

``advantages``, ``base_advantages`` (those of the advantage part), ``old_logprobs``, ``old_entropy`` (nats),
``tokens`` (ids), ``mask``, ``reference_logprobs`` (for which the run holds a reference policy): (N, T).
``prompt_of``, ``completion_of``, ``rewards``, ``accuracy``, ``finished``: (N,), the first two as numbers of
the prompt among the iteration's and of the completion within its group.
``pieces``: the text of each token id that occurs, by id.
With ``algorithm.early_answers``: ``thinking`` (N,), tokens until the thinking has ended; ``early_budgets``
(N, S), the same S budgets in each row, the last one the length limit; ``early_scores`` (N, S − 1), the total
reward of the answers at the others, NaN where there is none. With ``algorithm.empty_thought``:
``empty_thought`` (N,), 1 where a completion begins with a given thought.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import described

LN2 = math.log(2)


class FirstEntropy:
    """The entropy of the run's first optimizer step, that of the policy that it started from.

    Attributes:
        value: nats per token; None before the first step.
    """

    def __init__(self) -> None:
        self.value: float | None = None

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Keep the entropy of the first step that has one."""
        entropy = metrics.get("entropy", float("nan"))
        if self.value is None and not math.isnan(entropy):
            self.value = float(entropy)

    def state_dict(self) -> dict[str, Any]:
        """Return the value as plain data."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the value."""
        self.value = None if state["value"] is None else float(state["value"])


@described(
    "A ← A − {scale}·⟨H⟩, ⟨H⟩ the completion's mean entropy under π_old, and 0 where ⟨H⟩ > {threshold}, "
    "unless the run began above it",
    source="GTPO, arXiv 2508.03772, and its code",
    use="against the collapse of entropy, in place of a divergence",
    state=FirstEntropy,
    differs=(
        "The authors' code always leaves out completions above its threshold of 0.7. Here, as in their "
        "formula, it is ln 2, and none is left out if the policy's entropy was above it at the start.",
        "The authors take the current policy's entropy. Here it is the old policy's, the same at the "
        "iteration's first step.",
    ),
)
def entropy_shaped(
    advantages: Tensor,
    old_entropy: Tensor,
    mask: Tensor,
    state: float | None,
    *,
    scale: NonNegativeFloat = 0.1,
    threshold: PositiveFloat = LN2,
) -> Tensor:
    """Lower the advantage of uncertain completions and leave out the most uncertain ones.

    A group without a signal keeps −scale·⟨H⟩, as in the authors' code: a penalty of entropy alone.

    Args:
        advantages: (N, T).
        old_entropy: (N, T), nats.
        mask: (N, T).
        state: entropy at the start of the run; None in its first iteration, where it is this batch's.
        scale: the paper's γ.
        threshold: largest mean entropy that is learned from, in nats.

    Returns:
        (N, T).
    """
    if not mask.any():
        return advantages
    totals = torch.where(mask, old_entropy, torch.zeros_like(old_entropy)).sum(1)
    mean = totals / mask.sum(1).clamp(min=1)
    start = float(totals.sum() / mask.sum()) if state is None else state
    shaped = advantages - scale * mean[:, None]
    if start > threshold:
        return shaped
    return torch.where((mean <= threshold)[:, None], shaped, torch.zeros_like(shaped))


@described(
    "A ← λ·A, λ the product of two factors: {amplify} for A > 0 and {protect} for A < 0 in the unbroken run "
    "of conflict tokens from the first token, and likewise in that up to the last; else 1. A token is in "
    "conflict if completions of the group with A > 0 and with A < 0 have it at the same place",
    source="GTPO, arXiv 2508.03772, and its code",
    use="where good and bad completions share their openings and endings",
    differs=(
        "The authors' code also divides each completion's loss by its number of conflict tokens, which their "
        "formula does not. Here, as in the formula, it is not divided. No setting does this.",
        "The authors compare the last tokens of completions that the length limit cut off too. Here their "
        "end is no end, and they have no part in the runs at the end. No setting does this.",
    ),
)
def conflict_tokens(
    advantages: Tensor,
    base_advantages: Tensor,
    tokens: Tensor,
    mask: Tensor,
    prompt_of: Tensor,
    finished: Tensor,
    *,
    amplify: NonNegativeFloat = 2.0,
    protect: NonNegativeFloat = 0.0,
) -> Tensor:
    """Do not push down in bad completions what good ones of the same group share with them.

    Args:
        advantages: (N, T).
        base_advantages: (N, T); their signs say which completions are good and which are bad.
        tokens: (N, T) ids.
        mask: (N, T).
        prompt_of: (N,).
        finished: (N,) 1 where a completion ended by itself.
        amplify: factor at a run in completions with A > 0.
        protect: factor at a run in completions with A < 0; 0: no gradient.

    Returns:
        (N, T).
    """
    sign = torch.where(mask, base_advantages, torch.zeros_like(base_advantages)).sum(1).sign()
    factor = torch.ones_like(advantages)
    for prompt in sorted(set(prompt_of.tolist())):
        rows = (prompt_of == prompt).nonzero().squeeze(1)
        own, known, side = tokens[rows], mask[rows], sign[rows]
        run = _run(own, known, side)
        ending = torch.where(finished[rows] > 0, side, torch.zeros_like(side))
        width = torch.arange(own.shape[1], device=own.device).expand_as(own)
        last = torch.where(known, width, torch.full_like(width, -1)).amax(1, keepdim=True)
        # Column s of the mirrored tables is the token s places before the completion's last one.
        place = (last - width).clamp(min=0)
        within = (width <= last) & known.gather(1, place)
        mirrored = _run(own.gather(1, place), within, ending)
        at_end = mirrored.gather(1, place) & known & (width <= last)
        weight = torch.where(side > 0, amplify, protect).to(advantages)[:, None]
        for where in (run, at_end):
            factor[rows] = torch.where(where, factor[rows] * weight, factor[rows])
    return advantages * factor


def _run(tokens: Tensor, known: Tensor, side: Tensor) -> Tensor:
    """Return (g, T) bool, the unbroken run of conflict tokens from the first column of each row."""
    good, bad = side > 0, side < 0
    same = (tokens[:, None] == tokens[None]) & known[:, None] & known[None]
    opposed = (good[:, None] & bad[None]) | (bad[:, None] & good[None])
    conflict = (same & opposed[:, :, None]).any(1)
    return conflict.long().cumprod(1).bool()
