"""Attention kernels for equal lengths; the log-sum-exp that they return merges several sets of keys exactly.

For queries that attend to the union of two sets of keys, the result is the mean of those over each set, with
the exponentials of their log-sum-exps (lse) as weights. The gradient of each set needs only the merged out
and the merged lse: probabilities over the union are exp(score - lse), whichever set the key is in. (Blockwise
and ring attention rest on the same identity, arXiv 2310.01889.)
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

aten: Any = torch.ops.aten


class Kernel(Protocol):
    """Forward and backward pass of softmax attention; H query heads share K key heads in equal groups.

    Shapes: query, out (B, H, T, D); key, value (B, K, L, D); lse (B, H, T), at least float32. ``causal``
    requires T = L.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """Return out and lse."""
        ...

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        scale: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value; out and lse may be over a larger set of keys."""
        ...


class PlainKernel:
    """Matrix products and a softmax: any device and number format; holds all scores in memory."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """See ``Kernel``."""
        scores = _scores(query, key, scale, causal)
        lse = scores.logsumexp(-1)
        weights = (scores - lse.unsqueeze(-1)).exp().to(value.dtype)
        return weights @ _repeat_heads(value, query), lse

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        scale: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Kernel``."""
        weights = (_scores(query, key, scale, causal) - lse.unsqueeze(-1)).exp()
        mean = (grad * out).sum(-1, keepdim=True, dtype=weights.dtype)
        grad_weights = grad @ _repeat_heads(value, query).transpose(-1, -2)
        of_scores = (weights * (grad_weights - mean) * scale).to(query.dtype)
        of_key = of_scores.transpose(-1, -2) @ query
        of_value = weights.to(grad.dtype).transpose(-1, -2) @ grad
        groups = (key.shape[1], -1)
        return (
            of_scores @ _repeat_heads(key, query),
            of_key.unflatten(1, groups).sum(2),
            of_value.unflatten(1, groups).sum(2),
        )


class CpuFlashKernel:
    """torch's FlashAttention kernel for CPUs."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """See ``Kernel``."""
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, scale=scale
        )
        return out, lse

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        scale: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Kernel``."""
        grads: tuple[Tensor, Tensor, Tensor] = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, causal, scale=scale
        )
        return grads


class CudaFlashKernel:
    """torch's FlashAttention kernel: CUDA, float16 and bfloat16."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """See ``Kernel``."""
        out, lse, *_ = aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scale
        )
        return out, lse

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        scale: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Kernel``."""
        none = torch.empty(
            0, dtype=torch.long, device=query.device
        )  # random state of a dropout, which is not used
        grads: tuple[Tensor, Tensor, Tensor] = aten._scaled_dot_product_flash_attention_backward(
            grad,
            query,
            key,
            value,
            out,
            lse.contiguous(),
            None,
            None,
            query.shape[2],
            key.shape[2],
            0.0,
            causal,
            none,
            none,
            scale=scale,
        )
        return grads


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Merge out and lse of the same queries over two sets of keys into those over their union."""
    weight = torch.sigmoid(other_lse - lse).unsqueeze(-1).to(out.dtype)
    return out.lerp(other, weight), torch.logaddexp(lse, other_lse)


def _scores(query: Tensor, key: Tensor, scale: float, causal: bool) -> Tensor:
    scores = (query @ _repeat_heads(key, query).transpose(-1, -2)).to(
        torch.promote_types(query.dtype, torch.float32)
    )
    scores = scores * scale
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return scores


def _repeat_heads(values: Tensor, query: Tensor) -> Tensor:
    """Repeat the heads of keys or values once for each query head that shares them."""
    return values.repeat_interleave(query.shape[1] // values.shape[1], 1)
