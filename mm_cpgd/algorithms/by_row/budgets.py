"""Rollout budgets: how many completions each prompt of a rollout batch gets.

A part takes any of ``rows`` (P,), the prompts' training rows, ``completions`` G, ``memory`` and the clock. It
returns whole numbers (P,), each at least 1, whose sum is P·G, and is called before sampling, on all processes
alike.
"""

from __future__ import annotations

import math

import torch
from pydantic import PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.inputs.memory import RowMemory
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.part_info import OpenShare, described
from mm_cpgd.errors import UserError


class SuccessRates(RowMemory):
    """Mean accuracy of each row's completions when it was last drawn."""

    def __init__(self) -> None:
        super().__init__(rate=math.nan)

    def note(self, outcomes: Outcomes) -> None:
        """Replace the rates of the rows that were drawn; one without any score keeps its own."""
        rates = outcomes.accuracy.nanmean(1)
        known = ~rates.isnan()
        self.table.set("rate", outcomes.rows[known], rates[known])


@described(
    "n maximises Σ (1 − pⁿ − (1 − p)ⁿ)·p·(1 − p)² over the prompts with 0 < p < 1, {low} ≤ n ≤ {high}, where "
    "p is the row's mean accuracy at its last draw; p = 0 or 1: n = {low}; unknown: n = completions; what "
    "exceeds the need for a probability of {confidence} of both outcomes goes to p = 0",
    source="Knapsack RL, arXiv 2509.25849, and its code",
    group="by training row",
    use="few prompts have a signal, and rows are seen several times",
    memory=SuccessRates,
    differs=(
        "The authors solve the problem by dynamic programming. Here completions are dealt out one by one to "
        "the largest gain, which is exact, as gains fall with n.",
        "The authors' rewards are 0 and 1. Here p is the mean accuracy, and with values between the two the "
        "probability of both outcomes is an approximation.",
    ),
)
def knapsack(
    rows: Tensor,
    completions: int,
    memory: SuccessRates,
    *,
    low: PositiveInt = 2,
    high: PositiveInt = 128,
    confidence: OpenShare = 0.9,
) -> Tensor:
    """Deal an iteration's completions out to the prompts that can be learned from.

    Args:
        rows: (P,) indices of the training rows.
        completions: G, the mean number of completions.
        memory: success rates of the rows.
        low: smallest number of completions of a prompt.
        high: largest number, where the budget can be spent otherwise.
        confidence: probability of seeing both outcomes beyond which a prompt needs no more.

    Returns:
        (P,) int64, of sum P·G.

    Raises:
        UserError: G lies below ``low``.
    """
    if completions < low:
        raise UserError(
            f"algorithm.budget: knapsack: rollout.completions={completions} is below low = {low}, the "
            "smallest number that a prompt gets; raise rollout.completions or lower low"
        )
    rates = memory.table.get("rate", rows).tolist()
    counts = [completions if math.isnan(p) else low for p in rates]
    open_places = [place for place, p in enumerate(rates) if 0 < p < 1]
    left = len(rates) * completions - sum(counts)
    needs = {place: min(high, math.ceil(need(rates[place], confidence))) for place in open_places}
    for _ in range(min(left, sum(max(0, needs[place] - low) for place in open_places))):
        free = [place for place in open_places if counts[place] < high]
        if not free:
            break
        best = max(free, key=lambda place: gain(rates[place], counts[place]))
        counts[best] += 1
        left -= 1
    hopeless = [place for place, p in enumerate(rates) if p == 0]
    others = hopeless or [place for place in range(len(rates)) if place not in open_places]
    receivers = others or open_places
    for number in range(left):
        counts[receivers[number % len(receivers)]] += 1
    return torch.tensor(counts)


def gain(p: float, n: int) -> float:
    """Return what one more completion after n adds to (1 − pⁿ − (1 − p)ⁿ)·p·(1 − p)²."""
    return float((p**n * (1 - p) + (1 - p) ** n * p) * p * (1 - p) ** 2)


def need(p: float, confidence: float) -> float:
    """Return the completions after which both outcomes are seen with about this probability."""
    return math.log(1 - confidence) / math.log(max(p, 1 - p))
