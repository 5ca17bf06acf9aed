"""Choice of the attention kernel: the preferred one that agrees with plain matrix products on this device."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.blocks import BlockAttention, DenseBlocks
from mm_cpgd.policy.shared_prefix.kernels import CpuFlashKernel, CudaFlashKernel, Kernel, PlainKernel
from mm_cpgd.policy.shared_prefix.packing import PackedLayout, packed_layout
from mm_cpgd.policy.shared_prefix.varlen import (
    FlashAttention2Kernel,
    FlashAttention3Kernel,
    TorchVarlenKernel,
    VarlenBlocks,
    VarlenKernel,
)

# Of the comparison, in multiples of the resolution of the number format.
TOLERANCE = 100
PLAIN = "plain"
FLEX = "flex_attention"
DENSE: dict[str, type[Kernel]] = {"torch_flash": CudaFlashKernel, "cpu_flash": CpuFlashKernel}
VARLEN: dict[str, type[VarlenKernel]] = {
    "torch_varlen": TorchVarlenKernel,
    "flash_attention_2": FlashAttention2Kernel,
    "flash_attention_3": FlashAttention3Kernel,
}
# In the order of ``working``; the one that has to be compiled first comes last.
KERNELS = (*reversed(VARLEN), *DENSE, PLAIN, FLEX)
# By ``policy.attention``: what is tried in this order, before plain products.
DEFAULTS = ("torch_varlen", FLEX, "torch_flash", "cpu_flash")
PREFERRED: dict[str, tuple[str, ...]] = {
    "sdpa": DEFAULTS,
    "flash_attention_2": ("flash_attention_2", *DEFAULTS),
    "flash_attention_3": ("flash_attention_3", *DEFAULTS),
    "flex_attention": (FLEX, *DEFAULTS),
    "eager": (),
}
# What kernels that are missing, or whose interface has changed, raise.
UNUSABLE = (RuntimeError, ImportError, TypeError, AttributeError, NotImplementedError, ValueError, IndexError)


class PackedAttention(Protocol):
    """Differentiable attention of a packed sequence of S tokens."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float
    ) -> Tensor:
        """Return (S, H, D) for query (S, H, D), key and value (S, K, D)."""
        ...


_forced: list[str] = []


def attention_for(preferred: str, device: str, dtype: torch.dtype, head: int) -> PackedAttention:
    """Return the attention of ``PREFERRED`` that works for this device type, number format and head size."""
    names = _forced[-1:] or PREFERRED[preferred]
    return next((found for name in names if (found := checked(name, device, dtype, head))), plain())


def blocks_for(preferred: str, device: str, dtype: torch.dtype, head: int) -> BlockAttention:
    """Return the first attention by blocks of those that ``attention_for`` tries."""
    names = _forced[-1:] or PREFERRED[preferred]
    found = (checked(name, device, dtype, head) for name in names if name != FLEX)
    return next((one for one in found if isinstance(one, BlockAttention)), plain())


def wants_flex(preferred: str) -> bool:
    """Return whether FlexAttention is to be used first: the one attention that is not by blocks."""
    return next(iter(_forced[-1:] or PREFERRED[preferred]), PLAIN) == FLEX


def working(device: str, dtype: torch.dtype, head: int) -> Iterator[str]:
    """Yield the names of all kernels that agree with plain products here; each is compared when asked for."""
    return (name for name in KERNELS if checked(name, device, dtype, head))


@contextlib.contextmanager
def forced(name: str | None) -> Iterator[None]:
    """Use one kernel, whatever is preferred, within the ``with`` block; None: the preferred one."""
    if name is None:
        yield
        return
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


@functools.cache
def plain() -> BlockAttention:
    """Return attention by matrix products, for any device and number format."""
    return BlockAttention(functools.partial(DenseBlocks, PlainKernel()))


@functools.cache
def checked(name: str, device: str, dtype: torch.dtype, head: int) -> PackedAttention | None:
    """Return the kernel of this name; None if it is missing, or differs from plain products here."""
    if name == PLAIN:
        return plain()
    try:
        found = _build(name, device, dtype)
        return found if found is not None and _matches_plain(found, _place(device), dtype, head) else None
    except UNUSABLE:
        return None


def _build(name: str, device: str, dtype: torch.dtype) -> PackedAttention | None:
    """Return the kernel, None if it is not for this device and number format."""
    half = dtype in (torch.float16, torch.bfloat16)
    if name == "cpu_flash":
        return BlockAttention(functools.partial(DenseBlocks, CpuFlashKernel())) if device == "cpu" else None
    if device != "cuda" or not half:
        return None
    if name == FLEX:
        from mm_cpgd.policy.shared_prefix.flex import flex

        return flex
    if name in VARLEN:
        return BlockAttention(functools.partial(VarlenBlocks, VARLEN[name]()))
    return BlockAttention(functools.partial(DenseBlocks, DENSE[name]()))


def _place(device: str) -> torch.device:
    return torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)


def _matches_plain(attention: PackedAttention, place: torch.device, dtype: torch.dtype, head: int) -> bool:
    """Compare output and gradients on a small sequence whose lengths all differ.

    In a thread of its own: the first call comes from within a layer, where autocast is on, gradients may be
    off, and checkpointing intercepts what is saved for the backward pass.
    """
    with ThreadPoolExecutor(1) as pool:
        results, expected = (
            pool.submit(_results, one, place, dtype, head).result() for one in (attention, plain())
        )
    tolerance = TOLERANCE * torch.finfo(dtype).eps
    return all(
        torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance)
        for one, other in zip(results, expected, strict=True)
    )


def _results(attention: PackedAttention, place: torch.device, dtype: torch.dtype, head: int) -> list[Tensor]:
    """Return out and the gradients of query, key and value for three prompts, one without completions."""
    completions = torch.tensor([40, 3, 150, 70])
    layout = packed_layout(torch.tensor([40, 130, 9]), torch.tensor([43, 220, 0]), completions)
    generator = torch.Generator().manual_seed(0)

    def random(heads: int) -> Tensor:
        values = torch.randn(layout.tokens, heads, head, generator=generator)
        return values.to(place, dtype).requires_grad_()

    inputs = [random(4), random(2), random(2)]
    with torch.cuda.device(place) if place.type == "cuda" else contextlib.nullcontext():
        query, key, value = inputs
        out = attention(query, key, value, layout.to(place), head**-0.5)
        return [out.detach(), *torch.autograd.grad(out, inputs, random(4).detach())]
