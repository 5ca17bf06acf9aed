"""Attention of a packed sequence in blocks: prefix to prefix, completion to prefix, completion to itself.

The results of a completion over its two sets of keys are merged; prefix keys exist once per prompt. The
backward pass of each block takes the merged output and log-sum-exp, which makes it exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.kernels import Kernel, merge
from mm_cpgd.policy.shared_prefix.packing import PackedLayout

# From (S, …) to a view (B, T, …) of some of its tokens.
View = Callable[[Tensor], Tensor]


class Blocks(Protocol):
    """Forward and backward pass over a packed sequence; query (S, H, D), key and value (S, K, D)."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return out (S, H, D) and lse (S, H), at least float32."""
        ...

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the gradients of query, key and value, from that of ``out``."""
        ...


@dataclass(frozen=True)
class BlockAttention:
    """Differentiable attention of a packed sequence by blocks.

    Attributes:
        blocks: makes them for a layout and a scale.
    """

    blocks: Callable[[PackedLayout, float], Blocks]

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float
    ) -> Tensor:
        """Return (S, H, D)."""
        out: Tensor = _BlockFunction.apply(query, key, value, self.blocks(layout, scale))
        return out


class _BlockFunction(torch.autograd.Function):
    """Query (S, H, D), key and value (S, K, D), blocks → (S, H, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks) -> Tensor:
        ctx.blocks = blocks
        out, lse = blocks.forward(query, key, value)
        ctx.save_for_backward(query, key, value, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.blocks.backward(grads[0].contiguous(), *ctx.saved_tensors), None)


@dataclass(frozen=True)
class DenseBlocks:
    """Blocks by a kernel for equal lengths: prompts one by one unless all are equal, completions padded."""

    kernel: Kernel
    layout: PackedLayout
    scale: float

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Blocks``."""
        out = query.new_empty(query.shape)
        lse = out.new_empty(out.shape[:2], dtype=torch.promote_types(out.dtype, torch.float32))
        for prefix, group in self._views():
            keys, values = prefix(key), prefix(value)
            _copy((prefix(out), prefix(lse)), self._forward(prefix(query), keys, values, causal=True))
            if group is not None:
                cross = self._forward(group(query), keys, values, causal=False)
                _copy((group(out), group(lse)), cross)
        if self.layout.width:
            table = (self._pad(values) for values in (query, key, value))
            own = [self._unpad(values) for values in self._forward(*table, causal=True)]
            completions = slice(self.layout.prefix_tokens, None)
            out[completions], lse[completions] = merge(out[completions], lse[completions], *own)
        return out, lse

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, ...]:
        """See ``Blocks``."""
        inputs = (grad, query, key, value, out, lse)
        grads = tuple(torch.empty_like(values) for values in (query, key, value))
        for prefix, group in self._views():
            own = self._backward([prefix(values) for values in inputs], causal=True)
            if group is not None:
                keys = (prefix(key), prefix(value))
                cross = self._backward(
                    [group(grad), group(query), *keys, group(out), group(lse)], causal=False
                )
                group(grads[0]).copy_(cross[0])
                own[1] += cross[1]
                own[2] += cross[2]
            _copy([prefix(values) for values in grads], own)
        if self.layout.width:
            table = [self._pad(values) for values in inputs]
            if self.layout.pad is not None:
                self._mask_padding(table[0], table[-1])
            of_query, *others = (self._unpad(values) for values in self._backward(table, causal=True))
            completions = slice(self.layout.prefix_tokens, None)
            grads[0][completions] += of_query
            _copy([values[completions] for values in grads[1:]], others)
        return grads

    def _forward(self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> list[Tensor]:
        """Call the kernel on tensors (B, T, H, D)."""
        heads_first = (values.transpose(1, 2) for values in (query, key, value))
        results = self.kernel.forward(*heads_first, scale=self.scale, causal=causal)
        return [values.transpose(1, 2) for values in results]

    def _backward(self, inputs: Sequence[Tensor], *, causal: bool) -> list[Tensor]:
        heads_first = (values.transpose(1, 2) for values in inputs)
        results = self.kernel.backward(*heads_first, scale=self.scale, causal=causal)
        return [values.transpose(1, 2) for values in results]

    def _views(self) -> Iterator[tuple[View, View | None]]:
        """Yield for each prompt the views (B, T, …) of its prefix and of its completions in (S, …).

        If all prefixes and all groups have the same length, they are one batch.
        """
        lengths, groups = self.layout.prefix_lengths, self.layout.group_lengths
        start, group_start = 0, self.layout.prefix_tokens
        if len(set(lengths)) == 1 and len(set(groups)) == 1:
            completions = (
                _view(len(groups), group_start, group_start + sum(groups)) if self.layout.width else None
            )
            yield _view(len(lengths), 0, group_start), completions
            return
        for length, group in zip(lengths, groups, strict=True):
            completions = _view(1, group_start, group_start + group) if group else None
            yield _view(1, start, start + length), completions
            start, group_start = start + length, group_start + group

    def _pad(self, values: Tensor) -> Tensor:
        """Put the completions of (S, …) into a table (N, W, …); the content of padding is arbitrary."""
        completions = values[self.layout.prefix_tokens :]
        if self.layout.pad is not None:
            completions = completions.index_select(0, self.layout.pad)
        return completions.unflatten(0, (-1, self.layout.width))

    def _unpad(self, values: Tensor) -> Tensor:
        """Return the tokens (M, …) of a table (N, W, …), without padding."""
        flat = values.flatten(0, 1)
        return flat if self.layout.unpad is None else flat.index_select(0, self.layout.unpad)

    def _mask_padding(self, grad: Tensor, lse: Tensor) -> None:
        """Keep queries of padding from contributing to the gradients of the keys before them."""
        assert self.layout.unpad is not None
        padding = torch.ones(grad.shape[:2].numel(), dtype=torch.bool, device=grad.device)
        padding = padding.index_fill(0, self.layout.unpad, False).view(grad.shape[:2])
        grad[padding] = 0
        # Probabilities of 0: with another token's lse, exp(score - lse) could overflow.
        lse[padding] = torch.inf


def _copy(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _view(batch: int, start: int, end: int) -> View:
    return lambda values: values[start:end].unflatten(0, (batch, -1))
