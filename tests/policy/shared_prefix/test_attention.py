"""Shared-prefix attention in a model's layers: it follows the config's attention implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import load_policy
from mm_cpgd.policy.families import language_model, shared_prefix_obstacle
from mm_cpgd.policy.shared_prefix import attention
from mm_cpgd.policy.shared_prefix.attention import ATTENTION_NAMES, preferred_attention
from tests.fakes.shared_prompts import case


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_the_kernel_of_the_configured_attention_is_preferred(
    name: str, tiny_folder: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    policy = load_policy(PolicyConfig(model=str(tiny_folder), attention=name), say=said.append)
    assert (said, policy.shared_prefix) == ([], True)
    asked: list[str] = []
    choose = attention.attention_for
    monkeypatch.setattr(attention, "attention_for", lambda *a: asked.append(a[0]) or choose(*a))
    with torch.no_grad():
        policy(*case(policy, examples))
    assert set(asked) == {name}


@pytest.mark.parametrize("name", ATTENTION_NAMES)
def test_flash_attention_does_not_keep_prefixes_from_being_shared(name: str, tiny_folder: Path) -> None:
    model = load_policy(PolicyConfig(model=str(tiny_folder)), shared_prefix=False).model
    # Set after loading: transformers refuses a kernel whose package is not installed.
    language_model(model).config._attn_implementation_internal = name
    assert shared_prefix_obstacle(model) is None


def test_an_unknown_attention_keeps_prefixes_from_being_shared(tiny_folder: Path) -> None:
    model = load_policy(PolicyConfig(model=str(tiny_folder)), shared_prefix=False).model
    language_model(model).config._attn_implementation_internal = "paged|sdpa"
    assert shared_prefix_obstacle(model) == "policy.attention is paged|sdpa, not " + ", ".join(
        ATTENTION_NAMES
    )


def test_the_names_lead_back_to_the_configured_attention(tiny_folder: Path) -> None:
    language = language_model(load_policy(PolicyConfig(model=str(tiny_folder))).model)
    assert preferred_attention(language) == "sdpa"
    language.config._attn_implementation_internal = ATTENTION_NAMES["flash_attention_2"]
    assert preferred_attention(language) == "flash_attention_2"
    assert not [name for name in ATTENTION_NAMES.values() if "flash" in name]
