"""Weights of the rewards that move towards rules whose gradients help the others most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.advantages import centred
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.part_info import Share, described


def advantages_of_rules(rewards: Tensor, components: Tensor, signs: Tensor) -> Tensor:
    """Return the advantages (R, P, G) of each rule alone, its score less the group's mean; 0 where unscored.

    Args:
        rewards: (P, G), NaN where a completion could not be scored by all rules.
        components: (P, G, R).
        signs: (R,) of the rules' weights: a rule of negative weight is to fall.
    """
    unscored = rewards.isnan()
    each = [sign * scores for sign, scores in zip(signs.tolist(), components.unbind(2), strict=True)]
    return torch.stack([centred(scores.masked_fill(unscored, math.nan)) for scores in each])


class Influence:
    """Weight of each rule: w ← softmax(ln w + step·I), where I is how much its gradient helps all rules'.

    Args:
        step: of the exponentiated gradient, per unit of influence.
        every: iterations whose mean influence makes a step.
        floor: smallest weight, at most 1 / R.

    Attributes:
        logs: ln w by rule, 0 for all at first.
        sums: influences since the last step.
        count: iterations since the last step.
    """

    def __init__(self, step: float = 0.1, every: int = 1, floor: float = 0.05) -> None:
        self.step, self.every, self.floor = step, every, floor
        self.logs: dict[str, float] = {}
        self.sums: dict[str, float] = {}
        self.count = 0

    def weights(self, rules: Sequence[str]) -> Tensor:
        """Return the weights (R,) of these rules, of sum 1 and at least ``floor``."""
        logs = torch.tensor([self.logs.get(rule, 0.0) for rule in rules], dtype=torch.float64)
        return bounded(logs.softmax(0), self.floor)

    def note(self, outcomes: Outcomes) -> None:
        """Learn from an iteration's influences of its rules, those of weight 0 aside."""
        counted = (outcomes.weights != 0).nonzero().squeeze(1).tolist()
        products = self.products(outcomes)[counted][:, counted]
        rules = [outcomes.rules[place] for place in counted]
        self.learn(rules, products.sum(1))

    def products(self, outcomes: Outcomes) -> Tensor:
        """Return (R, R) the inner products of the rules' advantages, means over the scored completions."""
        signs = outcomes.weights.sign()
        own = advantages_of_rules(outcomes.rewards, outcomes.components, signs).double().flatten(1)
        return own @ own.T / (~outcomes.rewards.isnan()).sum().clamp(min=1)

    def learn(self, rules: Sequence[str], influence: Tensor) -> None:
        """Add influences (R,), and take a step if enough iterations have been added."""
        for rule, value in zip(rules, influence.tolist(), strict=True):
            self.sums[rule] = self.sums.get(rule, 0.0) + value
        self.count += 1
        if self.count < self.every:
            return
        moved = [self.logs.get(rule, 0.0) + self.step * self.sums[rule] / self.count for rule in rules]
        found = bounded(torch.tensor(moved, dtype=torch.float64).softmax(0), self.floor)
        self.logs = dict(zip(rules, found.log().tolist(), strict=True))
        self.sums, self.count = {}, 0

    def metrics(self) -> dict[str, float]:
        """Return the weight of each rule in the next iteration."""
        rules = [*self.logs] or [*self.sums]
        return {f"weight_{rule}": float(w) for rule, w in zip(rules, self.weights(rules), strict=True)}

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Nothing is learned from the metrics of an optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """Return weights and what has been added since the last step."""
        return {"logs": dict(self.logs), "sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore weights and sums."""
        self.logs = {name: float(value) for name, value in state["logs"].items()}
        self.sums = {name: float(value) for name, value in state["sums"].items()}
        self.count = int(state["count"])


def bounded(weights: Tensor, floor: float) -> Tensor:
    """Return weights (R,) of sum 1, none below min(floor, 1 / R): the others shrink in proportion."""
    size = len(weights)
    floor = min(floor, 1 / max(1, size))
    low = torch.zeros(size, dtype=torch.bool)
    found = weights
    for _ in range(size):
        low = low | (found < floor)
        rest = weights.masked_fill(low, 0.0)
        total = rest.sum()
        if not low.any() or total <= 0:
            break
        shrunk = rest / total * (1 - floor * int(low.sum()))
        found = torch.where(low, torch.full_like(weights, floor), shrunk)
    return found if found.sum() > 0 else weights


@described(
    "w ← softmax(ln w + {step}·I) every {every} iterations, w ≥ {floor}; I_j = Σ_k of the mean of A_j·A_k "
    "over completions, A_j the advantage of rule j alone; R = Σ sign(weight)·w·c",
    source="dynamic reward weighting, arXiv 2509.11452, guided by gradients; by advantages here",
    use="several rules without a preference among them: those that agree with the others gain",
    memory=Influence,
    differs=(
        "The authors take inner products of the rules' gradients over some layers. Here they are those of "
        "the advantages, the same if completions' gradients are orthonormal. No setting takes gradients.",
        "The authors weight a batch by what its own influences make of the weights. Here they are those of "
        "the iterations before.",
        "The authors have no smallest weight. Here it is 0.05. For theirs set floor to 0.",
    ),
)
def advantage_influence(
    weights: Tensor,
    rules: Sequence[str],
    memory: Influence,
    *,
    step: PositiveFloat = 0.1,
    every: PositiveInt = 1,
    floor: Share = 0.05,
) -> Tensor:
    """Dynamic reward weighting by influence: the rules' weights become equal shares of 1, and then move.

    Args:
        weights: (R,) of the rules; only their signs count, and a rule of weight 0 keeps it.
        rules: their names.
        memory: weights learned up to the last iteration.
        step: of a weight's logarithm, per unit of influence (square of a reward).
        every: iterations whose mean influence makes a step.
        floor: smallest weight, at most 1 / R.

    Returns:
        Weights (R,), whose absolute values have the sum 1.
    """
    counted = (weights != 0).nonzero().squeeze(1)
    found = torch.zeros_like(weights)
    found[counted] = memory.weights([rules[place] for place in counted.tolist()]).to(weights)
    return found * weights.sign()
