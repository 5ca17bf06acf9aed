"""Files of adapters: peft reads what is written, and a run starts from what peft writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.lora.adapters import SETTINGS, TENSORS
from mm_cpgd.policy.policy import ADAPTER_FOLDER


def adapted(folder: Path, **lora: Any) -> Policy:
    options = {"rank": 2, "alpha": 4, **lora}
    return load_policy(PolicyConfig.model_validate({"model": str(folder), "lora": options}))


def trained(folder: Path, **lora: Any) -> Policy:
    """Return a policy whose adapters have other values than at the start."""
    torch.manual_seed(0)
    policy = adapted(folder, **lora)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".lora_" in name:
                parameter.add_(0.1 * torch.rand_like(parameter))
    return policy


def logprobs(policy: Policy, examples: list[Example]) -> Tensor:
    prompts = [policy.encoder.encode(example) for example in examples]
    tokens = torch.arange(40, 40 + 6 * len(prompts)).view(len(prompts), 6)
    with torch.no_grad():
        values, _ = policy(prompts, tokens, torch.ones_like(tokens, dtype=torch.bool))
    return values


@pytest.fixture
def saved(tiny_folder: Path, tmp_path: Path) -> Path:
    """The folder of adapters beside a saved policy of rank 2 and alpha 4."""
    trained(tiny_folder).save(tmp_path / "final")
    return tmp_path / "final" / ADAPTER_FOLDER


@pytest.mark.parametrize("lora", [{}, {"dora": True}, {"vision": True}, {"targets": ["q_proj", "up_proj"]}])
def test_peft_reads_the_adapters_beside_the_merged_model(
    tiny_folder: Path, tmp_path: Path, lora: dict[str, Any]
) -> None:
    policy = trained(tiny_folder, **lora)
    policy.save(tmp_path)
    assert not (tmp_path / SETTINGS).exists()
    plain = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    read = PeftModel.from_pretrained(plain, tmp_path / ADAPTER_FOLDER)
    found = {name: value for name, value in read.base_model.model.named_parameters() if ".lora_" in name}
    own = {name: value for name, value in policy.model.named_parameters() if ".lora_" in name}
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)
    assert json.loads((tmp_path / ADAPTER_FOLDER / SETTINGS).read_text())["base_model_name_or_path"] == str(
        tiny_folder
    )


def test_a_policy_without_adapters_has_no_folder_of_them(tiny_folder: Path, tmp_path: Path) -> None:
    load_policy(PolicyConfig(model=str(tiny_folder))).save(tmp_path)
    assert not (tmp_path / ADAPTER_FOLDER).exists()


def test_a_policy_starts_from_saved_adapters(tiny_folder: Path, saved: Path, examples: list[Example]) -> None:
    again = adapted(tiny_folder, adapter=str(saved))
    assert torch.equal(logprobs(again, examples), logprobs(trained(tiny_folder), examples))
    assert all(p.requires_grad == (".lora_" in name) for name, p in again.named_parameters())


def test_a_policy_starts_from_adapters_that_peft_has_written(
    tiny_folder: Path, tmp_path: Path, examples: list[Example]
) -> None:
    torch.manual_seed(0)
    plain = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    pattern = r".*language_model.*\.(q_proj|v_proj)"
    written = get_peft_model(plain, LoraConfig(r=3, lora_alpha=5, target_modules=pattern))
    for name, parameter in written.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    written.save_pretrained(tmp_path)
    policy = adapted(tiny_folder, rank=3, alpha=5, targets=["q_proj", "v_proj"], adapter=str(tmp_path))
    written.merge_and_unload().save_pretrained(tmp_path / "merged")
    policy.processor.save_pretrained(tmp_path / "merged")
    merged = load_policy(PolicyConfig(model=str(tmp_path / "merged")))
    torch.testing.assert_close(logprobs(policy, examples), logprobs(merged, examples), rtol=0, atol=1e-5)


def test_the_reference_is_the_policy_at_the_start(
    tiny_folder: Path, saved: Path, examples: list[Example]
) -> None:
    policy = adapted(tiny_folder, adapter=str(saved))
    policy.keep_reference()
    start = logprobs(policy, examples)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(3)
    moved = logprobs(policy, examples)
    with policy.as_reference() as reference:
        assert torch.equal(logprobs(reference, examples), start)
    assert torch.equal(logprobs(policy, examples), moved)
    assert (moved - start).abs().max() > 0.01


def change(folder: Path, **settings: Any) -> None:
    file = folder / SETTINGS
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 8}, "needs policy.lora.rank=8"),
        ({"lora_alpha": 2, "use_dora": True}, "needs policy.lora.alpha=2, policy.lora.dora=true"),
        ({"use_rslora": True}, "use_rslora is True, which is not supported"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ],
)
def test_adapters_of_another_form_are_refused_with_what_to_set(
    tiny_folder: Path, saved: Path, settings: dict[str, Any], message: str
) -> None:
    change(saved, **settings)
    with pytest.raises(UserError, match=re.escape(message)):
        adapted(tiny_folder, adapter=str(saved))


def test_adapters_of_other_layers_are_refused_with_their_names(tiny_folder: Path, saved: Path) -> None:
    with pytest.raises(
        UserError, match=r"superfluous.*set policy.lora.targets=\[down_proj, gate_proj, k_proj"
    ):
        adapted(tiny_folder, adapter=str(saved), targets=["q_proj"])


def reshape(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    name = next(iter(tensors))
    save_file({**tensors, name: torch.zeros(7, 7)}, folder / TENSORS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / SETTINGS).unlink(), "could not be loaded"),
        (lambda folder: (folder / SETTINGS).write_text("["), "could not be loaded"),
        (lambda folder: (folder / SETTINGS).write_text("[]"), "no table of settings"),
        (lambda folder: (folder / TENSORS).write_bytes(b"x" * 9), "could not be loaded"),
        (lambda folder: (folder / TENSORS).unlink(), f"name a folder with {SETTINGS}"),
        (reshape, r"has shape \[7, 7\], and the model needs"),
    ],
)
def test_damaged_files_are_one_message(
    tiny_folder: Path, saved: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(saved)
    with pytest.raises(UserError, match=message) as caught:
        adapted(tiny_folder, adapter=str(saved))
    assert str(saved) in str(caught.value)
