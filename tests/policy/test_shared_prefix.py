"""Completions that share their prompt's forward pass get what they would get alone: values and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.families import image_features, vision_modules
from mm_cpgd.policy.vision import PatchProjection

# Of the prompts "square", "wide", "two" (images) and "text": groups of three, one, three and two rows.
PROMPT_OF = (2, 0, 3, 2, 0, 1, 0, 3, 2)
LENGTHS = (5, 9, 1, 12, 0, 7, 9, 2, 1)
# bfloat16 holds 8 bits: each layer rounds at 2^-8, and the two orders of summation round differently.
BFLOAT16 = 0.05

Case = tuple[list[EncodedPrompt], Tensor, Tensor]


def case(policy: Policy, examples: list[Example]) -> Case:
    prompts = [policy.encoder.encode(example) for example in examples]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, 250, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    return [prompts[p] for p in PROMPT_OF], tokens, mask


def results(policy: Policy, rows: Case, *, shared: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Values, entropies, and gradients of a sum in which every token has a weight of its own."""
    policy.shared_prefix = shared
    policy.zero_grad(set_to_none=True)
    values, entropies = policy(*rows, True)
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    (weights * values + weights.flip(0) * entropies).sum().backward()
    gradients = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad(set_to_none=True)
    policy.shared_prefix = True
    return values.detach(), entropies.detach(), gradients


def assert_shared_equals_unshared(policy: Policy, rows: Case, tolerance: float = 1e-5) -> None:
    wanted = results(policy, rows, shared=False)
    found = results(policy, rows, shared=True)
    for one, other in zip(found[:2], wanted[:2], strict=True):
        assert (one - other).norm() <= tolerance * other.norm()
    assert found[2].keys() == wanted[2].keys() != set()
    for name, gradient in wanted[2].items():
        # A bias of the keys shifts all scores of a query alike: its gradient is 0 but for rounding.
        floor = 1e-3 if name.endswith("k_proj.bias") else 0.0
        assert (found[2][name] - gradient).norm() <= tolerance * (gradient.norm() + floor), name


OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "with gradient checkpointing": {"gradient_checkpointing": True},
    "with adapters": {"lora": {"rank": 4}},
    "with a trained vision tower": {"freeze_vision": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_entropies_and_gradients_are_those_of_rows_that_share_nothing(
    tiny_folder: Path, examples: list[Example], options: dict[str, Any]
) -> None:
    policy = load_policy(PolicyConfig.model_validate({"model": str(tiny_folder), **options})).train()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert_shared_equals_unshared(policy, case(policy, examples))


def test_in_bfloat16_they_agree_as_far_as_bfloat16_goes(tiny_folder: Path, examples: list[Example]) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder))).train()
    rows = case(policy, examples)
    exact = results(policy, rows, shared=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(policy, rows, shared=True)
        alone = results(policy, rows, shared=False)
    for name, gradient in exact[2].items():
        if not name.endswith("k_proj.bias"):
            error, usual = (found[2][name] - gradient).norm(), (alone[2][name] - gradient).norm()
            assert error <= max(BFLOAT16 * gradient.norm(), 1.5 * usual), name
    assert (found[0] - exact[0]).norm() <= BFLOAT16 * exact[0].norm()


def test_a_completion_sees_nothing_of_its_siblings(tiny_policy: Policy, examples: list[Example]) -> None:
    prompts, tokens, mask = case(tiny_policy, examples)
    with torch.no_grad():
        values, _ = tiny_policy(prompts, tokens, mask)
        other, _ = tiny_policy(prompts, tokens.index_fill(0, torch.tensor([0]), 7), mask)
    torch.testing.assert_close(other[1:], values[1:], rtol=0, atol=1e-6)
    assert (other[0] - values[0]).abs().max() > 1e-2


def test_the_stream_holds_each_prompt_once_and_no_padding(
    tiny_policy: Policy, examples: list[Example]
) -> None:
    rows = case(tiny_policy, examples)
    read: list[int] = []
    layer = tiny_policy.model.model.language_model.layers[0]
    handle = layer.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].shape[:2].numel()))
    with torch.no_grad():
        tiny_policy(*rows)
    handle.remove()
    distinct = {id(prompt): len(prompt) for prompt in rows[0]}
    # Nothing is predicted behind a completion's last token: it is left out.
    assert read == [sum(distinct.values()) + sum(max(length - 1, 0) for length in LENGTHS)]


@pytest.fixture
def glances(tiny_policy: Policy) -> Iterator[list[int]]:
    """How many patches each call of the vision tower was shown."""
    seen: list[int] = []
    tower = vision_modules(tiny_policy.model)[0]
    handle = tower.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    yield seen
    handle.remove()


def test_a_frozen_vision_tower_sees_each_image_once_for_all_passes(
    tiny_policy: Policy, examples: list[Example], glances: list[int]
) -> None:
    rows = case(tiny_policy, examples)
    for _ in range(3):
        tiny_policy(*rows)
    with torch.no_grad():
        tiny_policy.keep_reference()
        with tiny_policy.as_reference() as reference:
            reference(*rows)
    images = {id(prompt): prompt.vision["pixel_values"].shape[0] for prompt in rows[0] if prompt.vision}
    assert glances == [sum(images.values())]


def test_an_image_of_several_prompts_is_seen_once(
    tiny_policy: Policy, examples: list[Example], glances: list[int]
) -> None:
    square, wide, *_ = examples
    again = replace(square, id="again", question="Which colour is it?")
    prompts = [tiny_policy.encoder.encode(example) for example in (square, wide, again)]
    tiny_policy.sight.look(prompts)
    assert glances == [sum(prompt.vision["pixel_values"].shape[0] for prompt in prompts[:2])]
    seen = [prompt.seen[1] for prompt in prompts if prompt.seen is not None]
    assert seen[0] is seen[2]
    assert seen[0].shape[1] == int(prompts[0].vision["image_grid_thw"].prod()) // 4
    assert seen[1].shape[1] == int(prompts[1].vision["image_grid_thw"].prod()) // 4


def test_what_one_policy_saw_is_not_what_another_one_sees(
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


def test_switched_off_it_is_said_nowhere_and_never_used(tiny_folder: Path) -> None:
    said: list[str] = []
    policy = load_policy(PolicyConfig(model=str(tiny_folder)), shared_prefix=False, say=said.append)
    assert (policy.shared_prefix, said) == (False, [])


def test_where_it_cannot_be_used_one_line_says_why(tiny_folder: Path) -> None:
    said: list[str] = []
    config = PolicyConfig(model=str(tiny_folder), attention="eager")
    assert not load_policy(config, say=said.append).shared_prefix
    (line,) = said
    assert "policy.attention is eager" in line


def test_saved_policies_do_not_know_of_it(tiny_policy: Policy, tmp_path: Path) -> None:
    tiny_policy.save(tmp_path / "out")
    assert "mm_cpgd" not in (tmp_path / "out" / "config.json").read_text()


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
