"""Shared-prefix attention, computed in blocks, equals attention under the mask written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mm_cpgd.policy.shared_prefix.attention import SharedPrefixAttention
from mm_cpgd.policy.shared_prefix.kernels import CpuFlashKernel, Kernel, PlainKernel
from mm_cpgd.policy.shared_prefix.packing import packed_layout

HEADS, KEY_HEADS, HEAD = 4, 2, 16


# Tokens of each prompt, and of each of its completions.
SHAPES = {
    "all equal": ((7, 7), ((3, 3), (3, 3))),
    "all unequal": ((7, 9, 4), ((3, 5), (1, 2, 6), ())),
    "prompts of unequal lengths": ((3, 8), ((2, 2), (2, 2))),
    "equal groups of unequal completions": ((3, 3), ((4,), (2, 2))),
    "no completion": ((5,), ((),)),
}


def allowed(prompts: tuple[int, ...], groups: tuple[tuple[int, ...], ...]) -> Tensor:
    """Return the full mask: True where a token (row) attends to another (column)."""
    total = sum(prompts) + sum(map(sum, groups))
    mask = torch.zeros(total, total, dtype=torch.bool)
    spans = []
    at = 0
    for length in prompts:
        spans.append(slice(at, at + length))
        mask[spans[-1], spans[-1]] = torch.ones(length, length).tril().bool()
        at += length
    for span, group in zip(spans, groups, strict=True):
        for length in group:
            own = slice(at, at + length)
            mask[own, span] = True
            mask[own, own] = torch.ones(length, length).tril().bool()
            at += length
    return mask


@pytest.mark.parametrize("kernel", [PlainKernel(), CpuFlashKernel()], ids=["plain", "flash"])
@pytest.mark.parametrize(("prompts", "groups"), SHAPES.values(), ids=SHAPES)
def test_shared_attention_is_attention_under_the_mask_written_out(
    prompts: tuple[int, ...],
    groups: tuple[tuple[int, ...], ...],
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mm_cpgd.policy.shared_prefix.attention.kernel_for", lambda *_: kernel)
    mask = allowed(prompts, groups)
    generator = torch.Generator().manual_seed(0)
    # Large scores: a probability with the wrong normalization would overflow or vanish.
    query, key, value = (
        torch.randn(1, len(mask), heads, HEAD, generator=generator, dtype=torch.float64)
        .mul(8)
        .transpose(1, 2)
        .requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    lengths = [length for group in groups for length in group]
    layout = packed_layout(
        torch.tensor(prompts), torch.tensor([sum(g) for g in groups]), torch.tensor(lengths).long()
    )
    found = SharedPrefixAttention(layout).attend(0, query, key, value, 0.25)
    wanted = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.25, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    slope = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(found, (query, key, value), slope)
    for one, other in zip(gradients, torch.autograd.grad(wanted, (query, key, value), slope), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
