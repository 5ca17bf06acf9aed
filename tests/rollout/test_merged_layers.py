"""Merged weights of small layers: results are those of the layers, and layers with other parts are kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix import known_layers
from mm_cpgd.policy.shared_prefix.known_layers import are_small_and_known
from mm_cpgd.rollout import decoding, merged_layers
from tests.fakes.sampling import flat, sampled

SEEDS = [[1, 2], [3, 4], [5, 6]]


@pytest.fixture
def language(tiny_policy: Policy) -> Any:
    return copy.deepcopy(language_model(tiny_policy.model)).eval()


@pytest.fixture
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_samples_are_those_of_the_layers(
    tiny_policy: Policy, prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = flat(sampled(tiny_policy, prompts, SEEDS, max_new_tokens=12))
    monkeypatch.setattr(decoding, "merged_layers", lambda language: None)
    usual = flat(sampled(tiny_policy, prompts, SEEDS, max_new_tokens=12))
    for one, other in zip(merged, usual, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-5)


def test_the_layers_are_not_called_for_single_tokens(
    tiny_policy: Policy, prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(decoding, "run_layers", lambda *args: calls.append(args))
    sampled(tiny_policy, prompts, SEEDS, max_new_tokens=3)
    assert not calls


def test_changed_weights_are_copied_anew(language: Any, no_gradients: None) -> None:
    first = merged_layers.merged_layers(language)
    language.layers[0].mlp.down_proj.weight.zero_()
    second = merged_layers.merged_layers(language)
    assert first is not None
    assert second is not None
    assert first[0].closing.any()
    assert not second[0].closing.any()


def test_projections_with_and_without_bias_agree(language: Any, no_gradients: None) -> None:
    for layer in language.layers:
        assert layer.self_attn.q_proj.bias is not None
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(layer.self_attn, name).bias = None
        layer.self_attn.o_proj.bias = nn.Parameter(torch.randn(layer.self_attn.o_proj.out_features))
    assert merged_layers.merged_layers(language) is not None


def test_layers_that_differ_in_their_results_are_kept(language: Any, no_gradients: None) -> None:
    class Shifted(type(language.layers[0].input_layernorm)):  # type: ignore[misc]
        """A norm of other families: its weight is counted from one."""

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden) + hidden * 0.01

    language.layers[2].input_layernorm.__class__ = Shifted
    assert are_small_and_known(language)
    assert merged_layers.merged_layers(language) is None


@pytest.mark.parametrize("change", ["hook", "linear", "child", "bias", "dtype", "size", "forward"])
def test_layers_with_unknown_parts_are_kept(
    language: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    assert are_small_and_known(language)
    layer = language.layers[1]
    if change == "hook":
        layer.mlp.register_forward_hook(lambda *args: None)
    elif change == "linear":
        layer.self_attn.q_proj.__class__ = type("Adapted", (nn.Linear,), {})
    elif change == "child":
        layer.self_attn.q_norm = nn.Identity()
    elif change == "bias":
        layer.self_attn.k_proj.bias = None
    elif change == "dtype":
        layer.mlp.up_proj.to(torch.bfloat16)
    elif change == "size":
        monkeypatch.setattr(known_layers, "LARGEST_COPY", 1000)
    else:
        layer.forward = lambda *args, **options: None
    assert not are_small_and_known(language)


def test_layers_under_autocast_are_kept(language: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert not are_small_and_known(language)
