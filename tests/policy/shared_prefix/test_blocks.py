"""Shared-prefix attention, computed in blocks, equals attention under the mask written out."""

from __future__ import annotations

from functools import partial

import pytest

from mm_cpgd.policy.shared_prefix.blocks import BlockAttention, DenseBlocks
from mm_cpgd.policy.shared_prefix.kernels import CpuFlashKernel, Kernel, PlainKernel
from tests.fakes.packed_sequences import SHAPES, Shape, assert_is_masked_attention


@pytest.mark.parametrize("kernel", [PlainKernel(), CpuFlashKernel()], ids=["plain", "flash"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_attention_in_blocks_is_attention_under_the_mask_written_out(shape: Shape, kernel: Kernel) -> None:
    assert_is_masked_attention(BlockAttention(partial(DenseBlocks, kernel)), shape)
