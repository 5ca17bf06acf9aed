"""Prompt samplers: every row once per epoch in a resumable order, or a share of each batch drawn by score."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from data.example import DataError


class PromptSampler:
    """Draws row indices without replacement, epoch after epoch.

    The order of an epoch is a function of (seed, epoch) alone, so the state is two small numbers and a
    resumed sampler continues exactly where it stopped.

    Args:
        size: number of rows.
        seed: any integer.

    Raises:
        DataError: there are no rows.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 1:
            raise DataError(f"cannot draw prompts from {size} rows; give at least one")
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._order = self._shuffled()

    def take(self, count: int) -> list[int]:
        """Return the next ``count`` row indices; a draw may extend over one or more ends of an epoch."""
        if count < 0:
            raise ValueError(f"cannot take {count} rows")
        taken: list[int] = []
        while len(taken) < count:
            if self.position == self.size:
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._shuffled()
            chunk = self._order[self.position : self.position + count - len(taken)]
            self.position += len(chunk)
            taken += chunk.tolist()
        return taken

    def peek(self, count: int) -> list[int]:
        """Return what ``take`` would return, without advancing."""
        # A shallow copy is enough: drawing replaces attributes and changes none of them in place.
        return copy(self).take(count)

    def state_dict(self) -> dict[str, int]:
        """Return the state for ``load_state_dict``, as plain numbers."""
        return {"size": self.size, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state``. Raises ``DataError`` if it belongs to other rows or another seed."""
        for name in ("size", "seed"):
            if state[name] != getattr(self, name):
                raise DataError(
                    f"the checkpoint drew prompts with {name} {state[name]}, this run has "
                    f"{getattr(self, name)}; resume with the data and seed that it was started with"
                )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        # SeedSequence takes no negative numbers; the modulus maps different 64-bit seeds to different values.
        return np.random.default_rng([self.seed % 2**64, self.epoch]).permutation(self.size)


class ScoredPromptSampler(PromptSampler):
    """Curriculum sampler: draws a share of each batch by score, the rest as ``PromptSampler`` does.

    Draws by score are without repetition. A row has a score after its first ``update_scores``; where too few
    rows have a positive score, the uniform order fills the batch. Draws depend on the seed, the number of
    draws and the scores alone.

    Args:
        size: number of rows.
        seed: any integer.
        share: share of each batch that is drawn by score.
        scaled: scale the scores to [0, 1] over the rows that have one, so that the lowest is never drawn by
            score; where all are equal they stay as they are.

    Raises:
        DataError: there are no rows.
    """

    def __init__(self, size: int, seed: int = 0, share: float = 0.5, *, scaled: bool = False) -> None:
        super().__init__(size, seed)
        self.share = share
        self.scaled = scaled
        self.draws = 0
        self.scores = np.full(size, np.nan)

    def take(self, count: int) -> list[int]:
        """Return ``count`` row indices; rows drawn by score exclude those of the uniform share."""
        wanted = round(self.share * count)
        others = super().take(count - wanted)
        weights = self._weights()
        weights[others] = 0
        chosen = self._by_score(weights, min(wanted, int((weights > 0).sum())))
        self.draws += 1
        return [*others, *chosen, *super().take(wanted - len(chosen))]

    def update_scores(self, indices: Sequence[int], scores: Sequence[float]) -> None:
        """Replace the scores of these rows; NaN and negative scores count as 0."""
        self.scores[list(indices)] = np.nan_to_num(np.asarray(scores, dtype=float)).clip(min=0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for ``load_state_dict``; the scores as an array."""
        return {**super().state_dict(), "draws": self.draws, "scores": self.scores.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state``; a state without scores leaves all rows unscored.

        Raises:
            DataError: the state belongs to other rows or another seed.
        """
        super().load_state_dict(state)
        self.draws = int(state.get("draws", 0))
        self.scores = np.array(state.get("scores", np.full(self.size, np.nan)), dtype=float)

    def _weights(self) -> np.ndarray:
        """Return the weight of each row in draws by score; 0 for rows without a score."""
        known = self.scores[~np.isnan(self.scores)]
        if not self.scaled or not known.size or known.min() == known.max():
            return np.asarray(np.nan_to_num(self.scores))
        lowest, highest = known.min(), known.max()
        return np.asarray(np.nan_to_num((self.scores - lowest) / (highest - lowest)))

    def _by_score(self, weights: np.ndarray, count: int) -> list[int]:
        if not count:
            return []
        rng = np.random.default_rng([self.seed % 2**64, self.draws, 1])
        drawn: list[int] = rng.choice(self.size, count, replace=False, p=weights / weights.sum()).tolist()
        return drawn
