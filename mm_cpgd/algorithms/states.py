"""What parts remember from one optimizer step to the next, explicit and in every checkpoint.

A part stays a pure function: it takes the remembered value as its input ``state``. The object behind it has
``value``; ``observe(metrics)``, called after each optimizer step with the step's metrics over all processes;
``state_dict`` and ``load_state_dict``. It is made from those of the part's options that its constructor
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class State(Protocol):
    """What the objective asks of a part's memory."""

    @property
    def value(self) -> Any:
        """What the part gets."""

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Take note of an optimizer step; names as ``Objective.loss`` gives them."""

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs, as plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


class EntropyController:
    """A coefficient that grows while the entropy is below its target and shrinks while it is above.

    Args:
        target: nats a token.
        step: change of the coefficient at each optimizer step.
        largest: its upper bound; the lower one is 0.
    """

    def __init__(self, target: float, step: float, largest: float) -> None:
        self.target = target
        self.step = step
        self.largest = largest
        self.coefficient = 0.0
        self.below = False

    @property
    def value(self) -> float:
        """The coefficient that acts now: 0 while the entropy is above its target."""
        return self.coefficient if self.below else 0.0

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Move by one step; a step whose entropy is not finite or not given is passed over."""
        entropy = metrics.get("entropy", float("nan"))
        if entropy != entropy:
            return
        self.below = entropy <= self.target
        moved = self.coefficient + (self.step if self.below else -self.step)
        self.coefficient = min(max(moved, 0.0), self.largest)

    def state_dict(self) -> dict[str, Any]:
        """Return coefficient and side of the target."""
        return {"coefficient": self.coefficient, "below": self.below}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.coefficient, self.below = float(state["coefficient"]), bool(state["below"])
