"""Weights in 4 bits below adapters: what is quantized, what is saved, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.lora.layers import is_quantized, named_sizes, named_weights
from mm_cpgd.policy.sharding.fsdp2 import ShardSettings, shard_policy


@pytest.fixture
def policy(tiny_folder: Path) -> Policy:
    pytest.importorskip("bitsandbytes")
    return load_policy(config(tiny_folder))


def config(folder: Path, **lora: Any) -> PolicyConfig:
    return PolicyConfig.model_validate({"model": str(folder), "lora": {"quantize": "nf4", **lora}})


def test_only_the_language_model_is_quantized(policy: Policy) -> None:
    linear = {name: module for name, module in policy.model.named_modules() if isinstance(module, nn.Linear)}
    quantized = {name for name, module in linear.items() if type(module).__name__ == "Linear4bit"}
    adapted = {name for name in linear if name.endswith(".base_layer")}
    assert is_quantized(policy.model)
    assert quantized == adapted


def test_weights_are_sent_unpacked_with_their_sizes(policy: Policy, tiny_folder: Path) -> None:
    sent = dict(named_weights(policy.model))
    plain = dict(named_weights(load_policy(PolicyConfig(model=str(tiny_folder))).model))
    assert {name: value.shape for name, value in sent.items()} == {n: v.shape for n, v in plain.items()}
    assert named_sizes(policy.model) == [(name, value.nbytes) for name, value in sent.items()]
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    # NF4: the largest gap between neighbouring values is 0.3 of a block's largest value.
    assert 0 < (sent[name] - plain[name]).abs().max() <= 0.16 * plain[name].abs().max()


def test_the_saved_model_is_an_ordinary_one(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert hasattr(policy.model.config, "quantization_config")
    assert not is_quantized(load_policy(PolicyConfig(model=str(tmp_path))).model)


def test_quantized_weights_are_not_sharded(policy: Policy) -> None:
    with pytest.raises(UserError, match=r"distributed\.strategy=ddp"):
        shard_policy(policy, ShardSettings(), torch.device("cpu"), reference=False)


def test_without_bitsandbytes_the_message_names_it(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        load_policy(config(tiny_folder))
