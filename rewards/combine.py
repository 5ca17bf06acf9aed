"""Several rules as one weighted sum: gated, clipped, and each kept apart until the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rewards.components import Component, check_components, gates_first
from rewards.errors import RuleError
from rewards.registry import BoundRule, get_rule
from rewards.verdict import Status, Verdict
from rewards.verification import side_by_side


@dataclass(frozen=True)
class Scored:
    """The reward of one completion.

    Attributes:
        total: the weighted sum of the components' scores; None if a component that counts (weight not 0) has
            none, so that the completion leaves averages and advantages.
        components: each component's verdict by name, its score as it counts: after clipping and gate, before
            its weight.
    """

    total: float | None
    components: dict[str, Verdict] = field(default_factory=dict)


class RewardSum:
    """A weighted sum of reward rules.

    A rule that raises gives a verdict with status ``error`` and no score: the completion is not trained on,
    and the caller counts it. Rules may be called from several threads at a time.

    Args:
        components: each a ``Component`` or the short (rule, weight, options).

    Attributes:
        rules: the bound rules by the components' names, in the order given.
        weights: likewise.

    Raises:
        RuleError: no component, a name twice, a gate that is unknown, circular or can never open, a weight
            that is no number, or what ``get_rule`` raises.
    """

    def __init__(self, components: Sequence[Component | tuple[str, float, Mapping[str, Any]]]) -> None:
        given = [one if isinstance(one, Component) else Component(*one) for one in components]
        check_components(given)
        self.components = {one.key: one for one in given}
        self.weights = {one.key: float(one.weight) for one in given}
        self.rules: dict[str, BoundRule] = {one.key: get_rule(one.rule, one.options) for one in given}
        self._order = gates_first(self.components)

    def score_one(self, completion: str, example: Any) -> Scored:
        """Score one completion. Raises ``RuleError`` if a rule raises whose ``on_error`` is "stop"."""
        counted: dict[str, Verdict] = {}
        for key in self._order:
            component = self.components[key]
            verdict = _clipped(self._judged(component, completion, example), component)
            counted[key] = verdict if component.when is None else _gated(verdict, component, counted)
        verdicts = {key: counted[key] for key in self.rules}
        return Scored(self._total(verdicts), verdicts)

    def _judged(self, component: Component, completion: str, example: Any) -> Verdict:
        try:
            return self.rules[component.key](completion, example)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"[:300]
            if component.on_error == "stop":
                raise RuleError(
                    f"rule {component.rule!r} failed on example {getattr(example, 'id', '')!r}: {what}; "
                    "mend the rule, or set its on_error to skip to leave such completions out"
                ) from error
            return Verdict(None, Status.ERROR, None, what)

    def _total(self, verdicts: Mapping[str, Verdict]) -> float | None:
        total = 0.0
        for name, weight in self.weights.items():
            score = verdicts[name].score
            if weight and score is None:
                return None
            total += weight * (score or 0.0)
        return total

    def score(self, completions: Sequence[str], examples: Sequence[Any]) -> list[Scored]:
        """Score completions against their examples, in order. Raises ``ValueError`` if the numbers differ."""
        if len(completions) != len(examples):
            raise ValueError(f"{len(completions)} completions but {len(examples)} examples")
        return side_by_side(lambda pair: self.score_one(*pair), zip(completions, examples, strict=True))


def _clipped(verdict: Verdict, component: Component) -> Verdict:
    low = -math.inf if component.min is None else component.min
    high = math.inf if component.max is None else component.max
    if verdict.score is None or low <= verdict.score <= high:
        return verdict
    score = min(max(verdict.score, low), high)
    return replace(verdict, score=score, reason=f"{verdict.reason} ({verdict.score:g} clipped to {score:g})")


def _gated(verdict: Verdict, component: Component, counted: Mapping[str, Verdict]) -> Verdict:
    """The verdict if the gate's score is reached, else a score of 0; none if the gate has none."""
    gate = counted[component.when or ""]
    if verdict.score is None:
        return verdict
    if gate.score is None:
        return Verdict(None, gate.status, verdict.extracted, f"{component.when} has no score: {gate.reason}")
    if gate.score >= component.at_least or verdict.score == 0:
        return verdict
    needed = f"{component.when} is {gate.score:g}, at least {component.at_least:g} is needed"
    reason = f"does not count, for {needed} (else {verdict.score:g}: {verdict.reason})"
    return replace(verdict, score=0.0, status=Status.WRONG, reason=reason)
