"""Conditions of the study of methods: named changes of the config, in grids that each answer one question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mm_cpgd.errors import UserError
from rewards.messages import nearest

_FLIPPED = Path(__file__).resolve().with_name("flipped.py")


@dataclass(frozen=True)
class Condition:
    """A change of the runs' config.

    Attributes:
        name: name after ``@`` in a run's name.
        label: name in tables.
        changes: config overrides.
    """

    name: str
    label: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class ConditionGrid:
    """Conditions that answer one question.

    Attributes:
        question: title of its table.
        conditions: the conditions.
        recipes: recipes that are run if none are chosen.
        any_recipe: whether it can be applied to other recipes too.
    """

    question: str
    conditions: tuple[Condition, ...]
    recipes: tuple[str, ...]
    any_recipe: bool = True


def _wrong(percent: int) -> Condition:
    # The first rule is what the parts take as accuracy; held-out accuracy is that of the rule of this name.
    rules = (
        f"{{rule: '{_FLIPPED}:flipped', name: checked, timeout: null, options: {{share: {percent / 100}}}}}, "
        "{rule: format, weight: 0.5}, {rule: accuracy, weight: 0.0}"
    )
    return Condition(f"wrong_{percent}", f"{percent} % wrong rewards", (f"rewards=[{rules}]",))


def _ahead(batches: int) -> Condition:
    return Condition(f"ahead_{batches}", f"{batches} batches ahead", (f"rollout.ahead={batches}",))


def _drift(alpha: str) -> Condition:
    change = f"algorithm.regularizers.0.alpha={alpha}"
    return Condition(f"alpha_{alpha}", f"α = {alpha}", (change,))


def _aggregation(name: str, label: str) -> Condition:
    return Condition(name, label, (f"algorithm.aggregation={{name: {name}}}",))


_TOKENS = _aggregation("token_mean", "mean over tokens")
_HIGHER = Condition("upper_28", "upper bound 0.28", ("algorithm.surrogate.epsilon_high=0.28",))
_BOTH = Condition("tokens_28", "mean over tokens, upper bound 0.28", _TOKENS.changes + _HIGHER.changes)
_REPLACED = Condition(
    "replaced",
    "prompts without a signal replaced",
    ("algorithm.selection=[{name: dynamic_sampling, max_rounds: 3}]",),
)
_COMMON = ("cpgd", "cpg", "pg", "grpo", "rloo", "dr_grpo")

CONDITIONS = {
    "wrong": ConditionGrid("Wrong rewards", (_wrong(10), _wrong(30)), _COMMON),
    "stale": ConditionGrid("Stale rollouts", (_ahead(2), _ahead(4), _ahead(8)), _COMMON),
    "drift": ConditionGrid(
        "Weight of the policy drift",
        tuple(_drift(alpha) for alpha in ("0.03", "0.1", "0.3", "1")),
        ("cpgd", "pgd"),
        any_recipe=False,
    ),
    "aggregation": ConditionGrid(
        "Aggregation",
        (
            _TOKENS,
            _aggregation("completion_mean", "mean over completions"),
            _aggregation("constant", "constant denominator"),
        ),
        ("cpgd", "cpg", "grpo"),
    ),
    "lead": ConditionGrid(
        "Parts of DAPO's lead", (_TOKENS, _HIGHER, _BOTH, _REPLACED), ("grpo",), any_recipe=False
    ),
}
"""Grids by name; each condition is compared with the same recipe unchanged."""


def condition_named(name: str) -> Condition:
    """Return the condition of this name.

    Raises:
        UserError: there is none; the nearest is named.
    """
    found = {one.name: one for grid in CONDITIONS.values() for one in grid.conditions}
    if name not in found:
        raise UserError(f"condition {name!r} is unknown; {nearest(name, found)}")
    return found[name]


def conditions_named(text: str) -> tuple[str, ...]:
    """Parse names of grids of the form ``wrong,drift``.

    Raises:
        UserError: there is no such grid.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in CONDITIONS:
            raise UserError(f"--conditions {name!r} is unknown; choose of {', '.join(CONDITIONS)}")
    if not names:
        raise UserError(f"--conditions {text!r} names no grid; choose of {', '.join(CONDITIONS)}")
    return names
