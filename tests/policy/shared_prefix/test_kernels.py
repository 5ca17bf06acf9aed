"""Attention kernels: results over two sets of keys, merged, are those over their union."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mm_cpgd.policy.shared_prefix.kernels import CpuFlashKernel, Kernel, PlainKernel, merge


@pytest.mark.parametrize("kernel", [PlainKernel(), CpuFlashKernel()], ids=["plain", "flash"])
def test_merged_results_are_those_over_all_keys(kernel: Kernel) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 12, 16, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)
    )
    parts = (slice(0, 5), slice(5, 12))
    found = [
        kernel.forward(query, key[:, :, part], value[:, :, part], scale=0.3, causal=False) for part in parts
    ]
    out, lse = merge(*found[0], *found[1])
    scores = 0.3 * query @ key.repeat_interleave(2, 1).transpose(-1, -2)
    torch.testing.assert_close(lse, scores.logsumexp(-1), rtol=1e-12, atol=0)
    wanted = scaled_dot_product_attention(query, key, value, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
