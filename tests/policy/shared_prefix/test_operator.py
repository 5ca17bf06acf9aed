"""Attention as one operator: masked attention, exact gradients, and what compilers are told about it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.operator import OperatorAttention, layout_lengths
from mm_cpgd.policy.shared_prefix.packing import PackedLayout
from tests.fakes.packed_sequences import (
    HEAD,
    HEADS,
    KEY_HEADS,
    SCALE,
    SHAPES,
    Shape,
    assert_is_masked_attention,
    layout_of,
)


def attention(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    heads_first = (values.transpose(0, 1).unsqueeze(0) for values in (query, key, value))
    return OperatorAttention(layout_lengths(layout), "eager")(*heads_first, scale).squeeze(0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_operator_is_masked_attention_with_exact_gradients(shape: Shape) -> None:
    assert_is_masked_attention(attention, shape)


@pytest.mark.parametrize("shape", [SHAPES["all equal"], SHAPES["all unequal"]])
def test_what_the_operator_promises_compilers_is_so(shape: Shape) -> None:
    layout = layout_of(shape)
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    inputs = [torch.randn(layout.tokens, count, HEAD, requires_grad=True) for count in heads]
    arguments = (*inputs, layout_lengths(layout), "sdpa", SCALE)
    torch.library.opcheck(torch.ops.mm_cpgd.packed_attention.default, arguments)
