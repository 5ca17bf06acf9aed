"""Packed sequences of small prompts and completions, and attention under their mask written out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mm_cpgd.policy.shared_prefix.choice import PackedAttention
from mm_cpgd.policy.shared_prefix.packing import PackedLayout, packed_layout

HEADS, KEY_HEADS, HEAD = 4, 2, 16
SCALE = 0.25
# Tokens of each prompt, and of each of its completions.
Shape = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]
SHAPES: dict[str, Shape] = {
    "all equal": ((7, 7), ((3, 3), (3, 3))),
    "all unequal": ((7, 9, 4), ((3, 5), (1, 2, 6), ())),
    "prompts of unequal lengths": ((3, 8), ((2, 2), (2, 2))),
    "equal groups of unequal completions": ((3, 3), ((4,), (2, 2))),
    "no completion": ((5,), ((),)),
}


def layout_of(shape: Shape) -> PackedLayout:
    prompts, groups = shape
    lengths = [length for group in groups for length in group]
    sums = torch.tensor([sum(group) for group in groups])
    return packed_layout(torch.tensor(prompts), sums, torch.tensor(lengths).long())


def allowed(shape: Shape) -> Tensor:
    """Return the full mask: True where a token (row) attends to another (column)."""
    prompts, groups = shape
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


def assert_is_masked_attention(attention: PackedAttention, shape: Shape) -> None:
    """Compare output and gradients in float64, of large scores.

    A probability with the wrong normalization would overflow or vanish.
    """
    mask = allowed(shape)
    generator = torch.Generator().manual_seed(0)

    def random(heads: int) -> Tensor:
        return torch.randn(len(mask), heads, HEAD, generator=generator, dtype=torch.float64)

    inputs = [(8 * random(heads)).requires_grad_() for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    query, key, value = inputs
    found = attention(query, key, value, layout_of(shape), SCALE)
    wanted = scaled_dot_product_attention(
        *(values.transpose(0, 1) for values in inputs), attn_mask=mask, scale=SCALE, enable_gqa=True
    ).transpose(0, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    slope = random(HEADS)
    gradients = torch.autograd.grad(found, inputs, slope)
    for one, other in zip(gradients, torch.autograd.grad(wanted, inputs, slope), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
