"""Dimensions of a model, counted without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BlipConfig

from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import load_policy
from mm_cpgd.preflight.model_size import ModelSize, Weight, measure_model, with_lora
from mm_cpgd.preflight.model_source import MODELS, find_config


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"freeze_vision": False},
        {"lora": LoraConfig(rank=4)},
        {"lora": LoraConfig(targets=["q_proj"])},
        {"lora": LoraConfig(vision=True)},
        {"lora": LoraConfig(dora=True)},
    ],
)
def test_parameters_are_counted_without_weights_as_the_loaded_policy_counts_them(
    tiny_folder: Path, changes: dict[str, Any]
) -> None:
    config = PolicyConfig(model=str(tiny_folder), **changes)
    size = measure_model(config)
    loaded = list(load_policy(config).parameters())
    assert size.total + size.adapters == sum(p.numel() for p in loaded)
    assert size.trained == sum(p.numel() for p in loaded if p.requires_grad)


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.json")), ids=lambda file: file.stem)
def test_a_listed_model_has_its_published_number_of_parameters(file: Path) -> None:
    policy = PolicyConfig(model=f"Qwen/{file.stem}")
    size = measure_model(policy, find_config(policy, file))
    listed = json.loads(file.read_text())
    assert size.total == listed["parameters"]
    assert size.kind == listed["architectures"][0]
    assert size.stored == 2


def test_every_weight_is_part_of_a_layer_a_block_or_the_root(tiny_folder: Path) -> None:
    size = measure_model(PolicyConfig(model=str(tiny_folder)))
    units = {one.unit for one in size.weights}
    layers = {f"layer {number}" for number in range(size.text.layers)}
    blocks = {f"block {number}" for number in range(size.tower.layers)}
    assert units == {"root", *layers, *blocks}
    assert all(one.vision for one in size.weights if one.unit.startswith("block"))
    assert size.whole_vision()
    assert not measure_model(PolicyConfig(model=str(tiny_folder), freeze_vision=False)).whole_vision()


def test_the_width_of_qwen2_vls_tower_is_its_own_and_not_that_of_its_output() -> None:
    file = MODELS / "Qwen2-VL-7B-Instruct.json"
    policy = PolicyConfig(model="Qwen/Qwen2-VL-7B-Instruct")
    tower = measure_model(policy, find_config(policy, file)).tower
    assert (tower.layers, tower.hidden, tower.intermediate) == (32, 1280, 5120)


def test_quantized_are_the_layers_that_could_have_adapters(tiny_folder: Path) -> None:
    lora = LoraConfig(targets=["q_proj"], quantize="nf4")
    weights = measure_model(PolicyConfig(model=str(tiny_folder), lora=lora)).weights
    packed = [one for one in weights if one.packed]
    # Four layers of q, k, v, o, gate, up, down.
    assert len(packed) == 4 * 7
    assert not any(one.vision or one.adapter or one.trained for one in packed)


def test_adapters_on_the_vision_tower_are_trained_with_it(tiny_folder: Path) -> None:
    size = measure_model(PolicyConfig(model=str(tiny_folder), lora=LoraConfig(vision=True)))
    plain = measure_model(PolicyConfig(model=str(tiny_folder)))
    assert not size.whole_vision()
    assert (size.total, size.vision) == (plain.total, plain.vision)


def test_adapters_can_be_tried_on_a_model_that_is_planned_without(tiny_folder: Path) -> None:
    policy = PolicyConfig(model=str(tiny_folder), freeze_vision=False)
    found = find_config(policy)
    plain = measure_model(policy, found)
    adapted = with_lora(plain, policy, found, LoraConfig(rank=2))
    assert (plain.adapters, adapted.total) == (0, plain.total)
    assert adapted.trained == adapted.adapters > 0


def test_a_part_is_rounded_up_to_whole_rows() -> None:
    assert Weight((10, 4)).part(3) == 16
    assert Weight((2,)).part(4) == 1
    assert Weight(()).part(4) == 1


def test_the_head_is_counted_once_where_it_is_the_embedding(tiny_folder: Path) -> None:
    size: ModelSize = measure_model(PolicyConfig(model=str(tiny_folder)))
    assert size.head == size.vocabulary * size.text.hidden


def test_a_model_whose_parts_are_elsewhere_is_refused(tmp_path: Path) -> None:
    BlipConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'blip' model, which is not supported"):
        measure_model(PolicyConfig(model=str(tmp_path)))
