"""Planning of model files: layers stay whole, names keep their order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.policy import load_policy
from mm_cpgd.policy.lora.layers import merged_weights, named_sizes, named_weights
from mm_cpgd.policy.sharding.saving import plan_files, save_gathered

SIZES = [("model.embed.weight", 6), *((f"model.layers.{i}.{kind}", 2) for i in (0, 1, 10) for kind in "ab")]


def test_a_file_ends_before_the_layer_that_would_exceed_its_size() -> None:
    files = [list(one.names) for one in plan_files(SIZES, 8)]
    layers = [[f"model.layers.{i}.{kind}" for kind in "ab"] for i in (0, 1, 10)]
    assert files == [["model.embed.weight"], [*layers[0], *layers[1]], layers[2]]


def test_a_layer_larger_than_a_file_is_a_file_of_its_own() -> None:
    assert [len(one.names) for one in plan_files(SIZES, 1)] == [1, 2, 2, 2]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_files_written_one_by_one_hold_what_save_pretrained_writes(
    tiny_folder: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder), lora=lora))
    if lora:
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
    policy.save(tmp_path / "whole")
    save_gathered(policy.model, tmp_path / "files", write=True, limit=100_000)
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    index = json.loads((tmp_path / "files" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    found = {}
    for name in set(index["weight_map"].values()):
        own = load_file(tmp_path / "files" / name)
        assert all(index["weight_map"][key] == name for key in own)
        found |= own
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in expected.values())
    policy.processor.save_pretrained(tmp_path / "files")
    load_policy(PolicyConfig(model=str(tmp_path / "files")))


def test_the_config_names_the_number_format_of_the_files(tiny_folder: Path, tmp_path: Path) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    for part in (policy.model.config.text_config, policy.model.config.vision_config):
        part.dtype = "float16"  # as stored; the shards are of another
    save_gathered(policy.model, tmp_path / "files", write=True)
    load_policy(PolicyConfig(model=str(tiny_folder))).save(tmp_path / "whole")
    found, expected = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("files", "whole")
    )
    assert found == expected


def test_weights_come_one_at_a_time_with_adapters_merged_in(tiny_folder: Path) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder), lora=LoraConfig(rank=2)))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    merged = merged_weights(policy.model)
    found = dict(named_weights(policy.model))
    assert all(torch.equal(value, merged[name]) for name, value in found.items())
    assert set(merged) - set(found) <= {"lm_head.weight"}  # tied to the embeddings
    assert named_sizes(policy.model) == [(name, value.nbytes) for name, value in found.items()]


def test_a_full_disk_is_an_error_after_the_last_weight(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    asked: list[str] = []

    def counted(model: object) -> object:
        for name, value in named_weights(policy.model):
            asked.append(name)
            yield name, value

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mm_cpgd.policy.sharding.saving.named_weights", counted)
    monkeypatch.setattr("mm_cpgd.policy.sharding.saving.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_gathered(policy.model, tmp_path / "files", write=True, limit=100_000)
    assert len(asked) == len(named_sizes(policy.model))


def test_persistent_buffers_are_saved_beside_their_layer(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_policy(PolicyConfig(model=str(tiny_folder))).model
    layer = model.model.language_model.layers[1]
    layer.register_buffer("scale", torch.tensor([1.5]))
    layer.register_buffer("scratch", torch.zeros(3), persistent=False)
    names = [name for name, _ in named_sizes(model) if ".layers.1." in name]
    assert names[0] == "model.language_model.layers.1.scale"
    assert not any("scratch" in name for name in names)
    save_gathered(model, tmp_path, write=True, limit=100_000)
    saved = [load_file(file) for file in tmp_path.glob("*.safetensors")]
    (found,) = (own[name] for own in saved for name in own if name.endswith("layers.1.scale"))
    assert found.item() == 1.5
