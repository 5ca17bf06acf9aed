"""Rows with observations in them: values and gradients are those of the flattened text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.families.build import build_family
from data import ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.conversation.suffix import extend, suffix_lengths
from tests.fakes.conversations import Rows, Scripted, flattened, rows_of, scripts, scripts_about_videos

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def weights_of(count: int) -> Tensor:
    """A different weight for each token, so that no two can be exchanged."""
    return torch.linspace(0.5, 1.5, count).sin() + 0.2


def by_hand(policy: Policy, scripted: list[Scripted]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return log-probabilities of each conversation's own tokens, and gradients, by the model itself."""
    policy.zero_grad(set_to_none=True)
    found = []
    for script in scripted:
        inputs, mask = flattened(policy, script)
        logits = policy.model(**inputs, use_cache=False).logits[0].float()
        logits = logits.index_fill(-1, policy.forbidden, -torch.inf)
        own = mask.nonzero().squeeze(1)
        values = logits[own - 1].log_softmax(-1).gather(1, inputs["input_ids"][0, own, None]).squeeze(1)
        (values * weights_of(len(own))).sum().backward()
        found.append(values.detach())
    return found, gradients(policy)


def by_policy(policy: Policy, rows: Rows, *, shared: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the same from ``Policy.forward``."""
    policy.zero_grad(set_to_none=True)
    policy.shared_prefix = shared
    values, _ = policy(rows.prompts, rows.tokens, rows.mask, suffixes=rows.suffixes)
    assert not values[~rows.mask].any()
    own = [row[mask] for row, mask in zip(values, rows.mask, strict=True)]
    torch.stack([(one * weights_of(len(one))).sum() for one in own]).sum().backward()
    return [one.detach() for one in own], gradients(policy)


def gradients(policy: Policy) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen tower", "trained tower"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_flattened_text(
    family: str, frozen: bool, tiny_folder: Path, tmp_path: Path, noise_image: Callable[..., ImageRef]
) -> None:
    folder = build_family(family, tiny_folder, tmp_path)
    policy = load_policy(PolicyConfig(model=str(folder), dtype="float32", freeze_vision=frozen)).train()
    check_gradients(policy, scripts(noise_image))


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen tower", "trained tower"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_after_a_video_are_those_of_the_flattened_text(
    family: str, frozen: bool, tiny_folder: Path, tmp_path: Path, noise_image: Callable[..., ImageRef]
) -> None:
    folder = build_family(family, tiny_folder, tmp_path)
    policy = load_policy(PolicyConfig(model=str(folder), dtype="float32", freeze_vision=frozen)).train()
    check_gradients(policy, scripts_about_videos(noise_image))


def check_gradients(policy: Policy, scripted: list[Scripted]) -> None:
    rows = rows_of(policy, scripted)
    wanted, slopes = by_hand(policy, scripted)
    for shared in (True, False):
        found, own = by_policy(policy, rows, shared=shared)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert own.keys() == slopes.keys() != set()
        for name, gradient in slopes.items():
            # A bias of the keys shifts all scores of a query equally: its gradient is 0 up to rounding.
            floor = 1e-2 if "k_proj.bias" in name or "qkv.bias" in name else 0.0
            assert (own[name] - gradient).norm() <= 1e-5 * (gradient.norm() + floor), (name, shared)


def test_rows_without_observations_are_what_they_were(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    rows = rows_of(tiny_policy, [scripts(noise_image)[2]] * 2)
    with torch.no_grad():
        plain = tiny_policy(rows.prompts, rows.tokens, rows.mask)
        with_suffixes = tiny_policy(rows.prompts, rows.tokens, rows.mask, suffixes=[None, None])
    for one, other in zip(plain, with_suffixes, strict=True):
        assert torch.equal(one, other)


def test_an_extended_prompt_is_the_flattened_text(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    script = scripts(noise_image)[0]
    rows = rows_of(tiny_policy, [script])
    inputs, mask = flattened(tiny_policy, script)
    (suffix,) = rows.suffixes
    assert suffix is not None
    whole = extend(rows.prompts[0], rows.tokens[0], suffix)
    assert whole.input_ids.tolist() == inputs["input_ids"][0].tolist()
    assert torch.equal(whole.positions, inputs["position_ids"][:, 0])
    assert torch.equal(whole.vision["pixel_values"], inputs["pixel_values"])
    assert rows.mask[0].tolist() == mask[len(rows.prompts[0]) :].tolist()


def test_features_of_a_frozen_tower_are_computed_once_for_all_rows(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    rows = rows_of(tiny_policy, scripts(noise_image)[:2])
    with torch.no_grad():
        tiny_policy(rows.prompts, rows.tokens, rows.mask, suffixes=rows.suffixes)
    features = [suffix.vision_features for suffix in rows.suffixes if suffix]
    assert all(features)
    with torch.no_grad():
        tiny_policy(rows.prompts, rows.tokens, rows.mask, suffixes=rows.suffixes)
    again = [suffix.vision_features for suffix in rows.suffixes if suffix]
    assert all(one is other for one, other in zip(features, again, strict=True))


def test_the_length_of_a_suffix_reaches_to_its_last_own_token() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]).bool()
    assert suffix_lengths(mask).tolist() == [4, 2, 0, 5]
