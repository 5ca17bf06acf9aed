"""Memory of parts: what is learned from outcomes over the run, by training row, and in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mm_cpgd.algorithms.inputs.outcomes import Outcomes


class Memory(Protocol):
    """What parts that declare the same factory (``@described(…, memory=…)``) share as their input ``memory``.

    It is identical on all processes, because what it notes is. The factory gets those options of its parts
    that it takes. A checkpoint of other training rows is refused before any memory is loaded.
    """

    def note(self, outcomes: Outcomes) -> None:
        """Learn from the outcomes of an iteration (all prompts, kept or not), after its update."""

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Learn from the metrics of an optimizer step, named as in ``Objective.loss``."""

    def state_dict(self) -> dict[str, Any]:
        """Return the content for ``load_state_dict``: plain data, and tensors that do not change later."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the content."""


@runtime_checkable
class Reporting(Protocol):
    """A memory that reports numbers of its own, logged after each iteration's ``note``."""

    def metrics(self) -> dict[str, float]:
        """Return values by name, logged as ``memory/NAME``; the same names in every iteration."""


class RowTable:
    """Named columns with one float64 for each training row; a row has its column's default until it is set.

    Args:
        defaults: name of each column and the value of rows that were never set.
    """

    def __init__(self, **defaults: float) -> None:
        self.defaults = defaults
        self._columns = {name: torch.zeros(0, dtype=torch.float64) for name in defaults}

    def get(self, name: str, rows: Tensor) -> Tensor:
        """Return a column's values of these rows, (P,)."""
        self._grow(rows)
        return self._columns[name][rows].clone()

    def set(self, name: str, rows: Tensor, values: Tensor) -> None:
        """Replace a column's values of these rows (P,)."""
        self._grow(rows)
        self._columns[name][rows] = values.double()

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the columns."""
        return {name: column.clone() for name, column in self._columns.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the columns; one that the state does not have keeps its defaults."""
        self._columns = {
            name: torch.as_tensor(state.get(name, []), dtype=torch.float64).clone() for name in self.defaults
        }

    def _grow(self, rows: Tensor) -> None:
        size = int(rows.max()) + 1 if rows.numel() else 0
        for name, column in self._columns.items():
            if len(column) < size:
                more = torch.full((size - len(column),), self.defaults[name], dtype=torch.float64)
                self._columns[name] = torch.cat([column, more])


class RowMemory:
    """Base of memories that hold a ``RowTable`` and learn from outcomes alone: subclasses write ``note``.

    Args:
        defaults: the table's columns, with the values of rows that were never set.
    """

    def __init__(self, **defaults: float) -> None:
        self.table = RowTable(**defaults)

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Nothing is learned from an optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """Return the table's content."""
        return self.table.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the table's content."""
        self.table.load_state_dict(state)
