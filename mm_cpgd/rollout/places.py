"""Places of the completions that are decoded together: what each has drawn, in tensors of fixed shapes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_cpgd.policy.distribution import Sampling, sampling_logits
from mm_cpgd.policy.logprobs import allowed_logits
from mm_cpgd.rollout.drawing import draw
from mm_cpgd.rollout.kept import KeptSteps

# Tensors with one row for each place.
STATE = ("uniforms", "tokens", "logprobs", "lengths", "ended", "token")


@dataclass(frozen=True)
class Drawn:
    """What one completion has drawn.

    Attributes:
        tokens: (T_i,) ids.
        logprobs: (T_i,) in the sampling distribution.
        ended: whether the last token is an end token.
    """

    tokens: Tensor
    logprobs: Tensor
    ended: bool


class Places:
    """N places, each with a completion of at most T tokens that is decoded, or with one that has ended.

    Nothing in ``choose`` is read by the host and no shape depends on a value, so that its kernels can be
    recorded once and repeated.

    Args:
        count: N.
        sampling: its options; T is ``max_new_tokens``.
        forbidden: (F,) tokens of probability 0, on the device.
        ends: tokens that end a completion.
        pad: the padding token.
        kept: stores the tokens that the cuts leave; None: they are not reported.

    Attributes:
        uniforms: (N, T + 1) in [0, 1), one for each token; the last is not used.
        tokens: (N, T + 1); the last column takes what is drawn after the end.
        logprobs: (N, T + 1).
        lengths: (N,) tokens drawn.
        ended: (N,) whether the last of them is an end token.
        token: (N,) the newest token.
    """

    def __init__(
        self,
        count: int,
        sampling: Sampling,
        forbidden: Tensor,
        ends: Sequence[int],
        pad: int,
        kept: KeptSteps | None = None,
    ) -> None:
        device = forbidden.device
        self.sampling = sampling
        self.forbidden = forbidden
        self.ends = torch.tensor(ends, dtype=torch.long, device=device)
        self.pad = pad
        self.limit = sampling.max_new_tokens
        self.kept = kept
        self.rows = torch.arange(count, device=device)
        for name, values in self._empty(count).items():
            setattr(self, name, values)

    uniforms: Tensor
    tokens: Tensor
    logprobs: Tensor
    lengths: Tensor
    ended: Tensor
    token: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def _empty(self, count: int) -> dict[str, Tensor]:
        """Return the state of places without a completion."""
        device, width = self.forbidden.device, self.limit + 1
        return {
            "uniforms": torch.zeros(count, width, device=device),
            "tokens": torch.full((count, width), self.pad, device=device),
            "logprobs": torch.zeros(count, width, device=device),
            "lengths": torch.full((count,), self.limit, device=device),
            "ended": torch.zeros(count, dtype=torch.bool, device=device),
            "token": torch.full((count,), self.pad, device=device),
        }

    def start(self, rows: Tensor, uniforms: Tensor, logits: Tensor) -> None:
        """Begin new completions in these places (n,) with their uniforms (n, T) and first logits (n, V)."""
        fresh = copy.copy(self)
        for name in STATE:
            setattr(fresh, name, getattr(self, name)[rows])
        fresh.rows = rows
        fresh.uniforms[:, : self.limit] = uniforms
        fresh.lengths.zero_()
        fresh.ended.zero_()
        fresh.choose(logits)
        for name in STATE:
            getattr(self, name).index_copy_(0, rows, getattr(fresh, name))

    def choose(self, logits: Tensor) -> None:
        """Draw the next token of each place from logits (N, V), which may be changed."""
        logits = sampling_logits(allowed_logits(logits.float(), forbidden=self.forbidden), self.sampling)
        running = (self.lengths < self.limit) & ~self.ended
        column = self.lengths.where(running, self.limit).unsqueeze(1)
        uniforms = self.uniforms.gather(1, column).squeeze(1)
        token = draw(logits, uniforms, greedy=self.sampling.temperature == 0)
        drawn = token.unsqueeze(1)
        self.token.copy_(token)
        self.tokens.scatter_(1, column, drawn)
        self.logprobs.scatter_(1, column, logits.log_softmax(-1).gather(1, drawn))
        self.lengths += running
        self.ended |= running & (drawn == self.ends).any(1)
        if self.kept is not None:
            self.kept.add(self.rows, column.squeeze(1), logits)

    @property
    def newest(self) -> Tensor:
        """Index of each place's newest token within its completion (N,)."""
        return (self.lengths - 1).clamp(min=0)

    def stopped(self) -> list[bool]:
        """Return which places have nothing to draw; the host waits for the device."""
        found: list[bool] = (self.ended | (self.lengths >= self.limit)).tolist()
        return found

    def take(self, rows: Sequence[int]) -> list[Drawn]:
        """Return what these places have drawn."""
        index = torch.tensor(rows, device=self.rows.device)
        lengths, ended = self.lengths[index].tolist(), self.ended[index].tolist()
        tokens, logprobs = (values[index].cpu() for values in (self.tokens, self.logprobs))
        found = zip(tokens, logprobs, lengths, ended, strict=True)
        return [Drawn(own[:length], values[:length], end) for own, values, length, end in found]

    def keep(self, rows: Tensor, more: int = 0) -> None:
        """Drop all places except these, and add ``more`` without a completion."""
        empty = self._empty(more)
        for name in STATE:
            values = getattr(self, name)[rows]
            setattr(self, name, torch.cat([values, empty[name]]) if more else values)
        self.rows = torch.arange(len(rows) + more, device=rows.device)
        if self.kept is not None:
            self.kept.keep(len(rows) + more)
