"""The order in which prompts are drawn: every row once an epoch, reshuffled each epoch, resumable."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from data.errors import DataError


class PromptSampler:
    """Draws row indices without replacement, epoch after epoch.

    The order of an epoch is a function of (seed, epoch) alone, so the state is two small numbers, and a
    resumed sampler goes on as if it had never stopped.

    Args:
        size: number of rows.
        seed: any integer.

    Raises:
        DataError: there are no rows.
    """

    def __init__(self, size: int, seed: int = 0):
        if size < 1:
            raise DataError(f"cannot draw prompts from {size} rows; give at least one")
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._order = self._shuffled()

    def take(self, count: int) -> list[int]:
        """Return the next ``count`` row indices; a draw may run over the end of an epoch, or over many."""
        if count < 0:
            raise ValueError(f"cannot take {count} rows")
        taken: list[int] = []
        while len(taken) < count:
            if self.position == self.size:
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._shuffled()
            part = self._order[self.position : self.position + count - len(taken)]
            self.position += len(part)
            taken += part.tolist()
        return taken

    def peek(self, count: int) -> list[int]:
        """Return what ``take`` would, and stay where it is."""
        # A shallow copy will do: drawing replaces attributes and changes none of them in place.
        return copy(self).take(count)

    def state_dict(self) -> dict[str, int]:
        """Return what ``load_state_dict`` needs, as plain numbers."""
        return {"size": self.size, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken. Raises ``DataError`` if it is of other rows or another seed."""
        for name in ("size", "seed"):
            if state[name] != getattr(self, name):
                raise DataError(
                    f"the checkpoint drew prompts with {name} {state[name]}, this run has "
                    f"{getattr(self, name)}; resume with the data and seed it was started with"
                )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        # SeedSequence takes no negative numbers; the modulus keeps any two 64-bit seeds apart.
        return np.random.default_rng([self.seed % 2**64, self.epoch]).permutation(self.size)
