"""Completions of earlier iterations as a memory keeps them: tokens and log-probabilities, end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entries:
    """E completions, from the oldest to the newest.

    Prompts are not stored: they are encoded again from their training rows. An entry takes 8 bytes for each
    token and 40 more.

    Attributes:
        rows: (E,) int64, index of the prompt in the training rows.
        iterations: (E,) int64, in which they were sampled.
        rewards: (E,) float64, shaped.
        advantages: (E,) float64, when they were sampled.
        lengths: (E,) int64 tokens.
        tokens: (sum of the lengths,) int32.
        logprobs: likewise, float32, of the policy that sampled them.
    """

    rows: Tensor
    iterations: Tensor
    rewards: Tensor
    advantages: Tensor
    lengths: Tensor
    tokens: Tensor
    logprobs: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def none(cls) -> Entries:
        """Return no entries."""
        whole, real = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
        return cls(whole, whole, real, real, whole, whole.int(), real.float())

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Return the entries of all parts, one after the other."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def at(self, places: Tensor) -> Entries:
        """Return the entries at these places (k,), in their order."""
        ends, sizes = self.lengths.cumsum(0).tolist(), self.sizes
        parts = [slice(ends[place] - sizes[place], ends[place]) for place in places.tolist()]
        by_token = [
            torch.cat([values[part] for part in parts]) if parts else values[:0]
            for values in (self.tokens, self.logprobs)
        ]
        by_entry = (self.rows, self.iterations, self.rewards, self.advantages, self.lengths)
        return Entries(*(values[places] for values in by_entry), *by_token)

    @property
    def sizes(self) -> list[int]:
        """The lengths as numbers."""
        found: list[int] = self.lengths.tolist()
        return found

    def state(self) -> dict[str, Any]:
        """Return the content for a checkpoint, whose tensors do not change later."""
        return dict(vars(self))
