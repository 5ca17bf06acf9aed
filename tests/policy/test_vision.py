"""Vision features: computed once per image while the tower is frozen, and equal to those of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.families import image_features, vision_modules
from mm_cpgd.policy.vision import PatchProjection
from tests.fakes.shared_prompts import case


@pytest.fixture
def encoded_patches(tiny_policy: Policy) -> Iterator[list[int]]:
    """Number of patches in each call of the vision tower."""
    counts: list[int] = []
    tower = vision_modules(tiny_policy.model)[0]
    handle = tower.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    yield counts
    handle.remove()


def test_a_frozen_vision_tower_encodes_each_image_once_for_all_passes(
    tiny_policy: Policy, examples: list[Example], encoded_patches: list[int]
) -> None:
    rows = case(tiny_policy, examples)
    for _ in range(3):
        tiny_policy(*rows)
    with torch.no_grad():
        tiny_policy.keep_reference()
        with tiny_policy.as_reference() as reference:
            reference(*rows)
    images = {id(prompt): prompt.vision["pixel_values"].shape[0] for prompt in rows[0] if prompt.vision}
    assert encoded_patches == [sum(images.values())]


def test_an_image_of_several_prompts_is_encoded_once(
    tiny_policy: Policy, examples: list[Example], encoded_patches: list[int]
) -> None:
    square, wide, *_ = examples
    again = replace(square, id="again", question="Which colour is it?")
    prompts = [tiny_policy.encoder.encode(example) for example in (square, wide, again)]
    tiny_policy.vision_cache.encode(prompts)
    assert encoded_patches == [sum(prompt.vision["pixel_values"].shape[0] for prompt in prompts[:2])]
    features = [prompt.vision_features[1] for prompt in prompts if prompt.vision_features is not None]
    assert features[0] is features[2]
    assert features[0].shape[1] == int(prompts[0].vision["image_grid_thw"].prod()) // 4
    assert features[1].shape[1] == int(prompts[1].vision["image_grid_thw"].prod()) // 4


def test_features_of_one_policy_are_not_used_by_another(
    tiny_folder: Path, tiny_policy: Policy, examples: list[Example]
) -> None:
    prompts = [tiny_policy.encoder.encode(examples[0])]
    tokens = torch.tensor([[30, 31, 32]])
    other = load_policy(PolicyConfig(model=str(tiny_folder)))
    with torch.no_grad():
        for parameter in vision_modules(other.model)[0].parameters():
            parameter.mul_(0.5)
        own = [
            p(prompts, tokens, torch.ones_like(tokens).bool())[0] for p in (tiny_policy, other, tiny_policy)
        ]
    assert torch.equal(own[0], own[2])
    assert not torch.allclose(own[0], own[1])


def test_patches_projected_as_matrices_give_the_features_of_transformers(
    tiny_folder: Path, tiny_policy: Policy, examples: list[Example]
) -> None:
    plain = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    assert not any(isinstance(module, PatchProjection) for module in plain.modules())
    assert any(isinstance(module, PatchProjection) for module in tiny_policy.model.modules())
    vision = tiny_policy.encoder.encode(examples[2]).vision
    with torch.no_grad():
        found, wanted = (image_features(model, vision) for model in (tiny_policy.model, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
