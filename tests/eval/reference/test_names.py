"""Names of models: which published model is meant, and which is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eval.reference.names import ALIASES, Found, find_model, generation_settings, model_name, recognise
from eval.reference.tables import load_published

MODELS = sorted({one.model for one in load_published()})


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B"),
        ("qwen2_5-vl-7b-instruct", "Qwen2.5-VL-7B"),
        ("/data/models/Qwen2.5-VL-7B-Instruct/", "Qwen2.5-VL-7B"),
        ("/hub/models--Qwen--Qwen2.5-VL-7B-Instruct/snapshots/cc594898", "Qwen2.5-VL-7B"),
        ("QwenVL2.5-7B", "Qwen2.5-VL-7B"),
        ("FanqingM/MM-Eureka-Qwen-7B", "MM-Eureka-7B"),
        ("OpenGVLab/InternVL2_5-8B", "InternVL2.5-8B"),
        ("Qwen/Qwen3-VL-8B-Thinking", "Qwen3-VL-8B-Thinking"),
        ("gpt-4o-2024-11-20", "GPT-4o"),
        # Variants that were published apart, other weights, other models.
        ("Qwen3-VL-8B", None),
        ("Qwen/Qwen2.5-VL-7B-Instruct-AWQ", None),
        ("Qwen2.5-VL-72B-mine", None),
        ("Qwen/Qwen2.5-VL", None),
        ("", None),
        ("/", None),
    ],
)
def test_a_name_means_a_published_model_or_none(name: str, model: str | None) -> None:
    assert find_model(name, MODELS) == model


def test_every_alias_means_its_own_model() -> None:
    aliases = yaml.safe_load(ALIASES.read_text(encoding="utf-8"))
    assert set(aliases) <= set(MODELS)
    assert all(find_model(alias, MODELS) == model for model, own in aliases.items() for alias in own)
    assert all(find_model(model, MODELS) == model for model in MODELS)


@pytest.mark.parametrize(
    ("file", "key"),
    [("config.json", "_name_or_path"), ("adapter_config.json", "base_model_name_or_path")],
)
def test_a_folder_is_recognised_by_what_its_configuration_names(tmp_path: Path, file: str, key: str) -> None:
    (tmp_path / file).write_text(json.dumps({key: "Qwen/Qwen2.5-VL-7B-Instruct"}))
    found = recognise({"model": str(tmp_path)}, MODELS)
    assert found is not None
    assert (found.model, found.derived) == ("Qwen2.5-VL-7B", True)
    assert "Qwen/Qwen2.5-VL-7B-Instruct" in found.by


@pytest.mark.parametrize("text", ["{", "[]", '{"_name_or_path": 3}', '{"_name_or_path": ""}'])
def test_a_damaged_configuration_names_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert recognise({"model": str(tmp_path)}, MODELS) is None


def test_a_predictions_file_is_recognised_by_the_name_that_it_begins_with() -> None:
    settings = {"predictions": "out/Qwen2.5-VL-7B-Instruct_MathVista_MINI.xlsx"}
    found = recognise(settings, MODELS)
    assert found == Found("Qwen2.5-VL-7B", f"by the name of the file {Path(settings['predictions']).name}")
    assert recognise({"predictions": "answers.jsonl"}, MODELS) is None


def test_rows_of_a_result_bring_the_settings_that_they_were_generated_with(tmp_path: Path) -> None:
    settings = {"model": "Qwen/Qwen2.5-VL-7B-Instruct", "max_new_tokens": 2048}
    (tmp_path / "summary.json").write_text(json.dumps({"settings": settings}))
    rescored = {"predictions": str(tmp_path / "rows.jsonl"), "data": "x"}
    assert generation_settings(rescored) == settings
    assert model_name(rescored) == settings["model"]
    assert recognise(rescored, MODELS) == Found("Qwen2.5-VL-7B", "by its name")


@pytest.mark.parametrize("text", [None, "{", "{}", '{"settings": {}}', '{"settings": 3}', "[]"])
def test_another_file_beside_the_predictions_brings_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    rescored = {"predictions": str(tmp_path / "rows.jsonl")}
    assert generation_settings(rescored) == rescored
