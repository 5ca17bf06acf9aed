"""Attention over one set of keys that says how much it saw, so that results over several sets merge exactly.

For queries that attend to the union of two sets of keys, the result is the mean of those over each set, with
the exponentials of their log-sum-exps (lse) as weights. The gradient of each set needs nothing but the merged
out and the merged lse: probabilities over the union are exp(score - lse), whichever set the key is in. (This
identity also carries blockwise and ring attention, arXiv 2310.01889.)
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import torch
from torch import Tensor

aten: Any = torch.ops.aten
# Of the check below, relative to float32's and bfloat16's resolution.
TOLERANCE = 100


class Kernel(Protocol):
    """Both directions of softmax attention; H query heads share K key heads in equal groups.

    Shapes: query, out (B, H, T, D); key, value (B, K, L, D); lse (B, H, T), at least float32. ``causal`` is
    for T = L.
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
        """Return the gradients of query, key and value; out and lse may be those of a larger set of keys."""
        ...


class Plain:
    """Matrix products and a softmax: any device and number format; holds all scores at once."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """See ``Kernel``."""
        scores = _scores(query, key, scale, causal)
        lse = scores.logsumexp(-1)
        weights = (scores - lse.unsqueeze(-1)).exp().to(value.dtype)
        return weights @ _each_head(value, query), lse

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
        slope = grad @ _each_head(value, query).transpose(-1, -2)
        of_scores = (weights * (slope - mean) * scale).to(query.dtype)
        of_key = of_scores.transpose(-1, -2) @ query
        of_value = weights.to(grad.dtype).transpose(-1, -2) @ grad
        groups = (key.shape[1], -1)
        return (
            of_scores @ _each_head(key, query),
            of_key.unflatten(1, groups).sum(2),
            of_value.unflatten(1, groups).sum(2),
        )


class FlashOnCpu:
    """torch's blockwise kernel for CPUs."""

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
        found: tuple[Tensor, Tensor, Tensor] = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, causal, scale=scale
        )
        return found


class FlashOnGpu:
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
        none = torch.empty(0, dtype=torch.long, device=query.device)  # state of a dropout that is not there
        found: tuple[Tensor, Tensor, Tensor] = aten._scaled_dot_product_flash_attention_backward(
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
        return found


@functools.cache
def kernel_for(device: str, dtype: torch.dtype, head: int) -> Kernel:
    """Return the fastest kernel for this device type, number format and head size that is right."""
    if device == "cpu":
        candidate: Kernel = FlashOnCpu()
    elif device == "cuda" and dtype in (torch.float16, torch.bfloat16):
        candidate = FlashOnGpu()
    else:
        return Plain()
    return candidate if _computes_the_same(candidate, device, dtype, head) else Plain()


def _computes_the_same(kernel: Kernel, device: str, dtype: torch.dtype, head: int) -> bool:
    """Compare a kernel, which torch does not promise to keep, with ``Plain`` over two sets of keys."""
    with torch.no_grad():
        try:
            found = _trial(kernel, device, dtype, head)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError):
            return False
        wanted = _trial(Plain(), device, dtype, head)
    tolerance = TOLERANCE * torch.finfo(dtype).eps
    return all(
        torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance)
        for one, other in zip(found, wanted, strict=True)
    )


def _trial(kernel: Kernel, device: str, dtype: torch.dtype, head: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def some(heads: int) -> Tensor:
        return torch.randn(1, 40, heads, head, generator=generator).to(device, dtype).transpose(1, 2)

    query, grad, keys, values = some(4), some(4), (some(2), some(2)), (some(2), some(2))
    scale = head**-0.5
    parts = [
        kernel.forward(query, k, v, scale=scale, causal=c)
        for k, v, c in zip(keys, values, (False, True), strict=True)
    ]
    out, lse = merge(*parts[0], *parts[1])
    result = [out, lse]
    for k, v, c in zip(keys, values, (False, True), strict=True):
        result += kernel.backward(grad, query, k, v, out, lse, scale=scale, causal=c)
    return result


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Return out and lse of queries over the union of two sets of keys, from those over each."""
    share = torch.sigmoid(other_lse - lse).unsqueeze(-1).to(out.dtype)
    return out.lerp(other, share), torch.logaddexp(lse, other_lse)


def _scores(query: Tensor, key: Tensor, scale: float, causal: bool) -> Tensor:
    scores = (query @ _each_head(key, query).transpose(-1, -2)).to(
        torch.promote_types(query.dtype, torch.float32)
    )
    scores = scores * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores


def _each_head(values: Tensor, query: Tensor) -> Tensor:
    """Repeat the heads of keys or values for the query heads that share them."""
    return values.repeat_interleave(query.shape[1] // values.shape[1], 1)
