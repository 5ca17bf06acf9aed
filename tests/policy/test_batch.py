"""Collation of prompts and rows: padding, positions and vision tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from data import Example
from mm_cpgd.policy import EncodedPrompt, Policy, collate_prompts, collate_rows
from mm_cpgd.policy.batch import concatenate_vision


@pytest.fixture(scope="module")
def prompts(tiny_policy: Policy, examples: list[Example]) -> list[EncodedPrompt]:
    return [tiny_policy.encoder.encode(example) for example in examples]


def test_prompts_are_padded_left_and_rows_right(prompts: list[EncodedPrompt]) -> None:
    short, long = sorted((prompts[0], prompts[3]), key=len)
    gap = len(long) - len(short)
    left = collate_prompts([short, long], pad_id=0)
    assert left["attention_mask"][0].tolist() == [0] * gap + [1] * len(short)
    assert torch.equal(left["input_ids"][0, gap:], short.input_ids)
    assert torch.equal(left["position_ids"][:, 0, gap:], short.positions)
    tail = torch.tensor([5, 6])
    right = collate_rows([short, long], [tail, tail], pad_id=0)
    assert right["attention_mask"][0].tolist() == [1] * (len(short) + 2) + [0] * gap
    assert right["input_ids"][0, len(short) : len(short) + 2].tolist() == [5, 6]
    following = [short.next_position, short.next_position + 1]
    for axis in right["position_ids"][:, 0, len(short) : len(short) + 2]:
        assert axis.tolist() == following


def test_vision_tensors_keep_the_order_of_the_images(prompts: list[EncodedPrompt]) -> None:
    batch = collate_prompts([prompts[2], prompts[3], prompts[0]], pad_id=0)
    grids = [prompts[2].vision["image_grid_thw"], prompts[0].vision["image_grid_thw"]]
    assert torch.equal(batch["image_grid_thw"], torch.cat(grids))
    assert batch["pixel_values"].shape[0] == int(batch["image_grid_thw"].prod(1).sum())


def test_a_text_batch_has_no_vision_tensors(prompts: list[EncodedPrompt]) -> None:
    names = set(collate_prompts([prompts[3]], pad_id=0))
    # Token types come with newer versions of transformers.
    assert names - {"mm_token_type_ids"} == {"input_ids", "attention_mask", "position_ids"}


def with_vision(**vision: Tensor) -> EncodedPrompt:
    return EncodedPrompt(torch.arange(3), torch.arange(3).unsqueeze(0), vision=vision)


def test_images_with_fewer_tiles_are_filled_up_with_zeros() -> None:
    one, other = torch.ones(1, 2, 3, 4), 2 * torch.ones(2, 5, 3, 2)
    found = concatenate_vision([with_vision(pixel_values=one), with_vision(pixel_values=other)])
    assert found["pixel_values"].shape == (3, 5, 3, 4)
    assert torch.equal(found["pixel_values"][:1, :2], one)
    assert torch.equal(found["pixel_values"][1:, :, :, :2], other)
    assert found["pixel_values"].sum() == one.sum() + other.sum()


def test_patches_of_all_images_in_one_row_stay_in_one_row() -> None:
    one, other = torch.ones(1, 3, 2, 4), torch.zeros(1, 3, 2, 4)
    sizes = torch.tensor([[1, 2]])
    found = concatenate_vision(
        [with_vision(pixel_values=values, target_sizes=sizes) for values in (one, other)]
    )
    assert torch.equal(found["pixel_values"], torch.cat([one, other], -1))
    assert torch.equal(found["target_sizes"], torch.cat([sizes, sizes]))
