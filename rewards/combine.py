"""Several rules as one weighted sum, each component kept apart for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.errors import RuleError
from rewards.registry import BoundRule, get_rule
from rewards.verdict import Status, Verdict
from rewards.verification import side_by_side

Component = tuple[str, float, Mapping[str, Any]]


@dataclass(frozen=True)
class Scored:
    """The reward of one completion.

    Attributes:
        total: the weighted sum of the components' scores; None if a component that counts (weight not 0) has
            none, so that the completion leaves averages and advantages.
        components: each rule's verdict, by rule name.
    """

    total: float | None
    components: dict[str, Verdict] = field(default_factory=dict)


def guarded(bound: BoundRule, completion: str, example: Any) -> Verdict:
    """The rule's verdict; ``error`` without a score if it raises, for a bug says nothing of the answer."""
    try:
        return bound(completion, example)
    except Exception as error:
        return Verdict(None, Status.ERROR, None, f"{type(error).__name__}: {error}"[:300])


class RewardSum:
    """A weighted sum of reward rules.

    A rule that raises gives a verdict with status ``error`` and no score: the completion is not trained on,
    and the caller counts it. Rules may be called from several threads at a time.

    Args:
        components: (rule, weight, options) each; see ``get_rule`` for how a rule is named.

    Raises:
        RuleError: no component, a rule twice, or what ``get_rule`` raises.
    """

    def __init__(self, components: Sequence[Component]) -> None:
        names = [name for name, _, _ in components]
        if not names:
            raise RuleError("no reward rule is given; name at least one under rewards")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise RuleError(f"rule {twice!r} is given twice; add up the weights and keep one")
        self.weights = {name: float(weight) for name, weight, _ in components}
        self.rules: dict[str, BoundRule] = {name: get_rule(name, options) for name, _, options in components}

    def score_one(self, completion: str, example: Any) -> Scored:
        """Score one completion."""
        verdicts = {name: guarded(bound, completion, example) for name, bound in self.rules.items()}
        return Scored(self._total(verdicts), verdicts)

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
