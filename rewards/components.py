"""What a reward is composed of: rules with their weights, gates and limits, and whether they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rewards.binding import nearest
from rewards.errors import RuleError

# What the log keeps under reward/ beside the components' own means.
_TAKEN = ("mean", "std", "unscored", "failed")


@dataclass(frozen=True)
class Component:
    """One rule of the sum.

    Attributes:
        rule: as for ``get_rule``.
        weight: of its score in the sum; 0 logs it only; negative punishes.
        options: the rule's own.
        name: in the log; the rule's, or its function's, if None. With names, one rule may stand twice with
            other options.
        when: the name of another component without which this one counts 0.
        at_least: the score which that one must reach.
        min: lower scores are raised to it.
        max: higher scores are cut to it.
        on_error: what a rule that raises does: take the completion out of the update, or stop the run.
    """

    rule: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    when: str | None = None
    at_least: float = 1.0
    min: float | None = None
    max: float | None = None
    on_error: Literal["skip", "stop"] = "skip"

    @property
    def key(self) -> str:
        """What it is called in the log and in another's ``when``."""
        if self.name is not None:
            return self.name
        # Of path/to/file.py:function the function: a path has no place in the name of a metric.
        file, _, function = self.rule.rpartition(":")
        return function if file.endswith(".py") else self.rule


def check_components(components: Sequence[Component]) -> None:
    """Raise ``RuleError`` for no component, a name twice or taken, a number that is none, no weight."""
    if not components:
        raise RuleError("no reward rule is given; name at least one under rewards")
    keys = [one.key for one in components]
    for one in components:
        _check_numbers(one)
        if keys.count(one.key) > 1:
            raise RuleError(
                f"component {one.key!r} is given twice; give one a name of its own (name: …), or keep one"
            )
        if one.key in _TAKEN or not one.key.strip():
            raise RuleError(
                f"a component cannot be called {one.key!r}, which the log uses; give it a name (name: …)"
            )
    if not any(one.weight for one in components):
        raise RuleError("every reward has weight 0, so nothing would be learned; give one a weight")


def _check_numbers(one: Component) -> None:
    for what in ("weight", "at_least", "min", "max"):
        value = getattr(one, what)
        if value is None and what in ("min", "max"):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RuleError(f"{what} of the reward {one.key!r} is {value!r}; it must be a finite number")
    if one.min is not None and one.max is not None and one.min > one.max:
        raise RuleError(f"min {one.min:g} of the reward {one.key!r} is above its max {one.max:g}; swap them")
    if one.on_error not in ("skip", "stop"):
        raise RuleError(f"on_error of the reward {one.key!r} is {one.on_error!r}; it is skip or stop")


def gates_first(components: Mapping[str, Component]) -> list[str]:
    """The names in an order in which each comes after its gate.

    Raises:
        RuleError: a gate that is unknown, circular or can never open.
    """
    order: list[str] = []
    for key in components:
        chain = _chain(key, components)
        order += [one for one in reversed(chain) if one not in order]
    return order


def _chain(key: str, components: Mapping[str, Component]) -> list[str]:
    """A component, its gate, the gate of that, and so on."""
    chain = [key]
    while (gate := components[chain[-1]].when) is not None:
        _check_gate(components[chain[-1]], components)
        if gate in chain:
            loop = " → ".join([*chain[chain.index(gate) :], gate])
            raise RuleError(f"the gates of the rewards go in a circle: {loop}; leave one when: out")
        chain.append(gate)
    return chain


def _check_gate(one: Component, components: Mapping[str, Component]) -> None:
    gate = components.get(one.when or "")
    if gate is None:
        raise RuleError(
            f"reward {one.key!r} counts only when {one.when!r} holds, and no component has that name: "
            f"{nearest(one.when or '', components)} (or add one, with weight 0 if it is a gate alone)"
        )
    if gate.max is not None and gate.max < one.at_least:
        raise RuleError(
            f"reward {one.key!r} needs {one.when!r} to be at least {one.at_least:g}, but the max of that is "
            f"{gate.max:g}; lower at_least"
        )
