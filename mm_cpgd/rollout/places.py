"""Places of the completions that are decoded together: what each has drawn, in tensors of fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_cpgd.policy.distribution import Sampling, sampling_logits
from mm_cpgd.policy.logprobs import allowed_logits
from mm_cpgd.rollout.drawing import draw
from mm_cpgd.rollout.kept import KeptSteps


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
        self.limit = sampling.max_new_tokens
        self.uniforms = torch.zeros(count, self.limit, device=device)
        self.tokens = torch.full((count, self.limit + 1), pad, device=device)
        self.logprobs = torch.zeros(count, self.limit + 1, device=device)
        self.lengths = torch.full((count,), self.limit, device=device)
        self.ended = torch.zeros(count, dtype=torch.bool, device=device)
        self.token = torch.full((count,), pad, device=device)
        self.rows = torch.arange(count, device=device)
        self.kept = kept

    def __len__(self) -> int:
        return len(self.rows)

    def start(self, rows: Tensor, uniforms: Tensor, logits: Tensor) -> None:
        """Begin new completions in these places (n,) with their uniforms (n, T) and first logits (n, V)."""
        self.uniforms[rows] = uniforms
        self.lengths[rows] = 0
        self.ended[rows] = False
        self.choose(logits, rows)

    def choose(self, logits: Tensor, rows: Tensor | None = None) -> None:
        """Draw the next token of all places, or of some (n,), from logits (n, V) that may be changed."""
        rows = self.rows if rows is None else rows
        logits = sampling_logits(allowed_logits(logits.float(), forbidden=self.forbidden), self.sampling)
        lengths = self.lengths[rows]
        running = (lengths < self.limit) & ~self.ended[rows]
        uniforms = self.uniforms[rows, lengths.clamp(max=self.limit - 1)]
        token = draw(logits, uniforms, greedy=self.sampling.temperature == 0)
        column = lengths.where(running, self.limit)
        self.tokens[rows, column] = token
        self.logprobs[rows, column] = logits.log_softmax(-1).gather(-1, token.unsqueeze(-1)).squeeze(-1)
        if self.kept is not None:
            self.kept.add(rows, column, logits)
        self.token[rows] = token
        self.lengths[rows] = lengths + running
        self.ended[rows] |= running & (token.unsqueeze(-1) == self.ends).any(-1)

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

    def keep(self, rows: Tensor) -> None:
        """Drop all places except these."""
        self.uniforms, self.tokens, self.logprobs, self.lengths, self.ended, self.token = (
            values[rows]
            for values in (
                self.uniforms, self.tokens, self.logprobs, self.lengths, self.ended, self.token
            )
        )  # fmt: skip
        self.rows = torch.arange(len(rows), device=rows.device)
        if self.kept is not None:
            self.kept.keep(len(rows))
