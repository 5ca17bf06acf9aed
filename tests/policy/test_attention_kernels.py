"""Attention over parts of the keys, merged, is attention over all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mm_cpgd.policy.shared_prefix import kernels
from mm_cpgd.policy.shared_prefix.attention import SharedPrefix
from mm_cpgd.policy.shared_prefix.kernels import FlashOnCpu, Kernel, Plain, kernel_for
from mm_cpgd.policy.shared_prefix.packing import _layout

HEADS, KEY_HEADS, HEAD = 4, 2, 16
# Tokens of each prompt, and of each of its completions.
SHAPES = {
    "all alike": ((7, 7), ((3, 3), (3, 3))),
    "nothing alike": ((7, 9, 4), ((3, 5), (1, 2, 6), ())),
    "prompts of unequal lengths": ((3, 8), ((2, 2), (2, 2))),
    "groups alike, completions not": ((3, 3), ((4,), (2, 2))),
    "no completion": ((5,), ((),)),
}


def allowed(prompts: tuple[int, ...], groups: tuple[tuple[int, ...], ...]) -> Tensor:
    """Which token (row) may see which (column), written out."""
    total = sum(prompts) + sum(map(sum, groups))
    seen = torch.zeros(total, total, dtype=torch.bool)
    spans = []
    at = 0
    for length in prompts:
        spans.append(slice(at, at + length))
        seen[spans[-1], spans[-1]] = torch.ones(length, length).tril().bool()
        at += length
    for span, group in zip(spans, groups, strict=True):
        for length in group:
            own = slice(at, at + length)
            seen[own, span] = True
            seen[own, own] = torch.ones(length, length).tril().bool()
            at += length
    return seen


@pytest.mark.parametrize("kernel", [Plain(), FlashOnCpu()], ids=["plain", "flash"])
@pytest.mark.parametrize(("prompts", "groups"), SHAPES.values(), ids=SHAPES)
def test_shared_attention_is_attention_under_the_mask_written_out(
    prompts: tuple[int, ...],
    groups: tuple[tuple[int, ...], ...],
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mm_cpgd.policy.shared_prefix.attention.kernel_for", lambda *_: kernel)
    seen = allowed(prompts, groups)
    generator = torch.Generator().manual_seed(0)
    # Large scores: a probability under the wrong sum would overflow or vanish.
    query, key, value = (
        torch.randn(1, len(seen), heads, HEAD, generator=generator, dtype=torch.float64)
        .mul(8)
        .transpose(1, 2)
        .requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    lengths = [length for group in groups for length in group]
    layout = _layout(
        torch.tensor(prompts), torch.tensor([sum(g) for g in groups]), torch.tensor(lengths).long()
    )
    found = SharedPrefix(layout).attend(0, query, key, value, 0.25)
    wanted = scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=0.25, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    slope = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(found, (query, key, value), slope)
    for one, other in zip(gradients, torch.autograd.grad(wanted, (query, key, value), slope), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


class Wrong(FlashOnCpu):
    """Forgets to count what it did not see."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        out, lse = super().forward(query, key, value, scale=scale, causal=causal)
        return out, lse + 0.1


class Gone(FlashOnCpu):
    """A function that torch has no more."""

    def forward(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        raise AttributeError("no such operator")


@pytest.mark.parametrize("broken", [Wrong, Gone])
def test_a_kernel_that_computes_something_else_is_not_used(
    broken: type[FlashOnCpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "FlashOnCpu", broken)
    kernel_for.cache_clear()
    assert isinstance(kernel_for("cpu", torch.float32, 16), Plain)
    kernel_for.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_fast_kernel_is_used_where_it_is_right(dtype: torch.dtype) -> None:
    assert isinstance(kernel_for("cpu", dtype, 32), FlashOnCpu)
