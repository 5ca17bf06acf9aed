"""Triton kernels of the softmax over the vocabulary: its values read the logits once, its gradient twice.

torch's operations read or write tensors of the size of the logits about ten times in each pass.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # not on every platform
    triton = tl = None

# Columns that a program reads at a time.
BLOCK = 4096
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def usable(logits: Tensor) -> bool:
    """Return whether the kernels run where these logits are, in their number format."""
    return logits.dtype in DTYPES and logits.dim() == 2 and _works(logits.device.type)


@functools.cache
def _works(device: str) -> bool:
    """Run both kernels once; whatever Triton raises here (no compiler, a card too old), torch is used."""
    if triton is None or (device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1"):
        return False
    try:
        logits = torch.randn(3, 70, device=device)
        tokens = torch.tensor([0, 69, 5], device=device)
        expected = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        found, _ = values(logits, tokens)
        zeros = write_gradient(logits, tokens, torch.ones(3, device=device), None).sum(-1)
        return bool(torch.allclose(found, expected, atol=1e-4) and zeros.abs().max() < 1e-4)
    except Exception:  # see above
        return False


def values(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (m,) of the tokens and entropies in nats (m,), float32.

    Args:
        logits: (m, V), -inf for tokens of probability 0.
        tokens: (m,).
    """
    logprobs, entropies = torch.empty(2, len(logits), device=logits.device)
    if len(logits):
        _values_kernel[(len(logits),)](
            logits, tokens, logprobs, entropies, logits.stride(0), logits.shape[1], block=BLOCK
        )
    return logprobs, entropies


def write_gradient(logits: Tensor, tokens: Tensor, of_logprob: Tensor, of_entropy: Tensor | None) -> Tensor:
    """Write the gradient of the logits in their place, and return it.

    Args:
        logits: (m, V), see ``values``; overwritten.
        tokens: (m,).
        of_logprob: (m,) gradient of the log-probabilities.
        of_entropy: (m,) gradient of the entropies; None for zeros.
    """
    if len(logits):
        slopes = of_logprob if of_entropy is None else of_entropy
        _gradient_kernel[(len(logits),)](
            logits, tokens, of_logprob.float().contiguous(), slopes.float().contiguous(),
            logits.stride(0), logits.shape[1], entropy=of_entropy is not None, block=BLOCK,
        )  # fmt: skip
    return logits


if triton is not None:

    @triton.jit
    def _statistics(row: Any, size: Any, block: tl.constexpr) -> Any:
        """Return the maximum m, s = Σ exp(z - m), and Σ exp(z - m)·(z - m) of a row."""
        columns = tl.arange(0, block)
        most = float("-inf")
        total = 0.0
        weighted = 0.0
        for start in range(0, size, block):
            place = start + columns
            z = tl.load(row + place, mask=place < size, other=float("-inf")).to(tl.float32)
            new = tl.maximum(most, tl.max(z, 0))
            # Until a finite logit has come, there is nothing to scale.
            shift = tl.where(new == float("-inf"), 0.0, new)
            moved = tl.where(most == float("-inf"), 0.0, most - shift)
            factor = tl.where(most == float("-inf"), 0.0, tl.exp(moved))
            below = z - shift
            part = tl.exp(below)
            weighted = factor * (weighted + moved * total)
            weighted += tl.sum(tl.where(z == float("-inf"), 0.0, part * below), 0)
            total = factor * total + tl.sum(part, 0)
            most = new
        return most, total, weighted

    @triton.jit
    def _values_kernel(
        logits: Any, tokens: Any, logprobs: Any, entropies: Any, stride: Any, size: Any, block: tl.constexpr
    ) -> None:
        index = tl.program_id(0).to(tl.int64)
        row = logits + index * stride
        most, total, weighted = _statistics(row, size, block)
        log = tl.log(total)
        own = tl.load(row + tl.load(tokens + index)).to(tl.float32)
        tl.store(logprobs + index, own - most - log)
        tl.store(entropies + index, log - weighted / total)

    @triton.jit
    def _gradient_kernel(
        logits: Any,
        tokens: Any,
        of_logprob: Any,
        of_entropy: Any,
        stride: Any,
        size: Any,
        entropy: tl.constexpr,
        block: tl.constexpr,
    ) -> None:
        index = tl.program_id(0).to(tl.int64)
        row = logits + index * stride
        most, total, weighted = _statistics(row, size, block)
        log = tl.log(total)
        token = tl.load(tokens + index)
        scale = tl.load(of_logprob + index)
        slope = tl.load(of_entropy + index)
        columns = tl.arange(0, block)
        for start in range(0, size, block):
            place = start + columns
            inside = place < size
            z = tl.load(row + place, mask=inside, other=float("-inf")).to(tl.float32)
            logprob = z - most - log
            probability = tl.exp(logprob)
            found = tl.where(place == token, scale, 0.0) - scale * probability
            if entropy:
                # d H / d z = -p·(log p + H), 0 where p is 0.
                own = probability * (logprob + log - weighted / total)
                found -= slope * tl.where(z == float("-inf"), 0.0, own)
            tl.store(row + place, found.to(logits.dtype.element_ty), mask=inside)
