"""The policy's weights and adapters in the form in which vLLM takes them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.families.build import absence, build_family
from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.rollout.vllm.weights import adapter_files, named_weights


@pytest.fixture
def adapted(tiny_folder: Any) -> Policy:
    policy = load_policy(PolicyConfig(model=str(tiny_folder), lora=LoraConfig(rank=2)))
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.ones_(parameter)
    return policy


def test_adapters_are_merged_into_the_sent_weights(tiny_folder: Any, adapted: Policy) -> None:
    plain = dict(load_policy(PolicyConfig(model=str(tiny_folder))).model.named_parameters())
    sent = dict(named_weights(adapted))
    assert sent.keys() == plain.keys()
    changed = {name for name in sent if not torch.equal(sent[name], plain[name])}
    assert changed
    assert all("language_model" in name for name in changed)


def test_a_weight_is_merged_when_it_is_asked_for(adapted: Policy) -> None:
    weights = named_weights(adapted)
    first = list(itertools.islice(weights, 3))
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if ".lora_B." not in name:
                parameter.zero_()
    assert all(value.count_nonzero() == 0 for _, value in weights)
    assert len(first) == 3


def test_files_of_adapters_are_read_by_peft(adapted: Policy, tiny_folder: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    adapter_files(adapted).write(tmp_path)
    plain = load_policy(PolicyConfig(model=str(tiny_folder))).model
    read = PeftModel.from_pretrained(plain, str(tmp_path))
    own = dict(adapted.model.named_parameters())
    found = {name: value for name, value in read.base_model.model.named_parameters() if ".lora_" in name}
    assert found.keys() == {name for name in own if ".lora_" in name}
    assert all(torch.equal(value, own[name]) for name, value in found.items())


def test_a_policy_without_adapters_has_no_files_of_them(tiny_policy: Policy) -> None:
    with pytest.raises(ValueError, match="no adapters"):
        adapter_files(tiny_policy)


def test_experts_are_sent_and_saved_as_published(tiny_folder: Path, tmp_path: Path) -> None:
    if reason := absence("qwen3_vl_moe"):
        pytest.skip(reason)
    policy = load_policy(
        PolicyConfig(model=str(build_family("qwen3_vl_moe", tiny_folder, tmp_path / "model")))
    )
    policy.save(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.safetensors")
    saved, sent = load_file(file), dict(named_weights(policy))
    # Four experts of width 24 for 64 hidden values; gate and up projection are one tensor.
    for kind, shape in {"gate_up_proj": (4, 64, 48), "down_proj": (4, 24, 64)}.items():
        name = f"model.language_model.layers.1.mlp.experts.{kind}"
        assert saved[name].shape == sent[name].shape == shape
        assert torch.equal(saved[name], sent[name])
