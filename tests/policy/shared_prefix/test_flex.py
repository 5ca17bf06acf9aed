"""FlexAttention of a packed sequence equals attention under the mask written out, here without a compiler."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import flex_attention

from mm_cpgd.policy.shared_prefix.flex import block_mask, flex
from tests.fakes.packed_sequences import SHAPES, Shape, allowed, assert_is_masked_attention, layout_of


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_flex_attention_is_attention_under_the_mask_written_out(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch refuses gradients on a CPU, where it has no compiled kernel for them; without compilation it has.
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    assert_is_masked_attention(flex, shape)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_mask_allows_what_a_completion_may_see(shape: Shape) -> None:
    mask = block_mask(layout_of(shape), torch.device("cpu"))
    length = len(allowed(shape))
    found = flex_attention.create_mask(mask.mask_mod, 1, 1, length, length, device="cpu")
    assert torch.equal(found[0, 0], allowed(shape))


def test_layers_share_the_mask() -> None:
    layout = layout_of(SHAPES["all unequal"])
    place = torch.device("cpu")
    assert block_mask(layout, place) is block_mask(layout, place)
