"""Tokens that the cuts leave at each step, stored on the device until the host reads several steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mm_cpgd.policy.distribution import KeptTokens

# Largest store of several steps: one byte for each step, place and token of the vocabulary.
STORED_BYTES = 2**28


class KeptSteps:
    """Kept tokens of N places, step by step.

    Args:
        places: N.
        limit: T, tokens of the longest completion.
        steps: most calls of ``add`` between two of ``read``.
    """

    def __init__(self, places: int, limit: int, steps: int) -> None:
        self.places = places
        self.limit = limit
        self.steps = steps
        self.left: Tensor | None = None
        self._read: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    @staticmethod
    def most_steps(places: int, vocabulary: int) -> int:
        """Return how many steps ``STORED_BYTES`` hold, at least two."""
        return max(2, STORED_BYTES // (places * vocabulary))

    def add(self, rows: Tensor, columns: Tensor, logits: Tensor) -> None:
        """Store a step of these places (n,).

        Args:
            rows: (n,) places.
            columns: (n,) the drawn token's index in its completion; T: it belongs to none.
            logits: (n, V) ``sampling_logits``.
        """
        if self.left is None:
            self._allocate(logits)
        assert self.left is not None
        self.left[self.step, rows] = logits > -torch.inf
        self.columns[self.step, rows] = columns
        self.step += 1

    def read(self, completions: Sequence[int | None]) -> None:
        """Read the stored steps of the places that have these completions (N,), and forget them."""
        if self.left is None:
            return
        steps, places = (self.columns < self.limit).nonzero(as_tuple=True)
        columns, left = self.columns[steps, places], self.left[steps, places]
        owners = torch.tensor([-1 if one is None else one for one in completions])[places.cpu()]
        counts, ids = left.sum(-1, dtype=torch.int32), left.nonzero()[:, 1].int()
        self._read.append((owners, columns.cpu(), counts.cpu(), ids.cpu()))
        self.step.zero_()
        self.columns.fill_(self.limit)

    def keep(self, places: int) -> None:
        """Go on with fewer places; everything must have been read."""
        self.places, self.left = places, None

    def take(self, completions: range, lengths: Sequence[int]) -> list[KeptTokens]:
        """Return the kept tokens of these completions, which have these lengths, and forget them."""
        owners, columns, counts, ids = (torch.cat(values) for values in zip(*self._read, strict=True))
        own = (owners >= completions.start) & (owners < completions.stop)
        of_id = own.repeat_interleave(counts)
        self._read = [(owners[~own], columns[~own], counts[~own], ids[~of_id])]
        everything = KeptTokens.at_positions(
            (len(completions), self.limit),
            owners[own] - completions.start, columns[own], counts[own], ids[of_id],
        )  # fmt: skip
        return [everything.select(torch.tensor([row]), length) for row, length in enumerate(lengths)]

    def _allocate(self, logits: Tensor) -> None:
        device, shape = logits.device, (self.steps, self.places)
        self.left = torch.zeros(*shape, logits.shape[-1], dtype=torch.bool, device=device)
        self.columns = torch.full(shape, self.limit, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
