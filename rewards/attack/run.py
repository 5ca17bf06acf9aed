"""Runs of a rule on the attacks on many golds, and their report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.attack.generate import attacks, draw
from rewards.attack.gold import Attack
from rewards.compose import Component, RewardSum
from rewards.example import ExampleLike
from rewards.verdict import Verdict

PER_KIND = 2
# The score from which an attack counts as paid.
PAID_FROM = 1.0


@dataclass(frozen=True)
class Paid:
    """An attack that a rule paid for, with its example and verdict."""

    attack: Attack
    example: ExampleLike
    verdict: Verdict


@dataclass
class Report:
    """What a rule paid for.

    Attributes:
        golds: examples whose gold answer was attacked.
        skipped: examples whose gold answer cannot be changed safely.
        right: attacked examples whose gold answer in a box or a tag is paid; if none, the rule's scores
            depend on something else, and nothing can be said by attacks.
        tried: attacks by kind.
        statuses: verdicts on attacks by status.
        paid: every attack paid for.
    """

    golds: int = 0
    skipped: int = 0
    right: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    paid: list[Paid] = field(default_factory=list)

    def paid_by_kind(self) -> Counter[str]:
        """Return the numbers of attacks paid for."""
        return Counter(one.attack.kind for one in self.paid)


def attack(
    rule: str,
    examples: Sequence[ExampleLike],
    options: Mapping[str, Any] | None = None,
    *,
    per_kind: int | None = PER_KIND,
    seed: int = 0,
    paid_from: float = PAID_FROM,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a rule on completions that must not pass.

    Args:
        rule: a rule's name, or ``path/to/file.py:function``.
        examples: their gold answers are attacked.
        options: the rule's options.
        per_kind: most attacks of one kind on one gold, drawn by the seed; None tries all.
        seed: seed of the draw.
        paid_from: the score from which an attack counts as paid.
        progress: called with (examples done, all examples).

    Raises:
        RuleError: what ``get_rule`` raises.
    """
    reward, report = RewardSum([Component(rule, options=options or {}, name="rule")]), Report()
    for number, example in enumerate(examples, 1):
        made = attacks(example.answer, example.choices)
        _count(report, reward, example, draw(made, per_kind, f"{seed}/{number}"), paid_from)
        if progress:
            progress(number, len(examples))
    return report


def _count(
    report: Report, reward: RewardSum, example: ExampleLike, made: Sequence[Attack], paid_from: float
) -> None:
    if not made:
        report.skipped += 1
        return
    report.golds += 1
    own = (f"\\boxed{{{example.answer}}}", f"<answer>{example.answer}</answer>")
    verdicts = _scored(reward, [*own, *(one.completion for one in made)], example)
    report.right += any(_is_paid(verdict, paid_from) for verdict in verdicts[: len(own)])
    for one, verdict in zip(made, verdicts[len(own) :], strict=True):
        report.tried[one.kind] += 1
        report.statuses[verdict.status.value] += 1
        if _is_paid(verdict, paid_from):
            report.paid.append(Paid(one, example, verdict))


def _scored(reward: RewardSum, completions: Sequence[str], example: ExampleLike) -> list[Verdict]:
    """Return the verdicts; what needs sympy is compared in several workers at a time."""
    scored = reward.score(completions, [example] * len(completions))
    return [one.components["rule"] for one in scored]


def _is_paid(verdict: Verdict, paid_from: float) -> bool:
    return verdict.score is not None and verdict.score >= paid_from
