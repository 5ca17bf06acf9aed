"""The model-index of a model card: read back by the hub's own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from eval.export.model_index import model_index
from mm_cpgd.errors import UserError
from tests.fakes.results import RIGHT, UNJUDGED, WRONG, result, row


def make(folder: Path, name: str = "mathvista", model: str = "me/my_model-7B", **settings: Any) -> Path:
    rows = [row("a", RIGHT, RIGHT), row("b", RIGHT, WRONG), row("c", WRONG, WRONG)]
    return result(folder, rows, name, {"model": model, **settings})


def test_the_hubs_library_reads_the_numbers_with_protocol_n_and_interval(tmp_path: Path) -> None:
    text = model_index([make(tmp_path / "a", split="testmini"), make(tmp_path / "b", "gauges")])
    card = ModelCard(f"---\n{text}---\n# A model\n")
    assert card.data.model_name == "my_model-7B"
    found = [(one.dataset_type, one.dataset_split, one.metric_args["protocol"], one.metric_value)
             for one in card.data.eval_results]  # fmt: skip
    assert found == [
        ("AI4Math/MathVista", "testmini", "official", 66.67),
        ("AI4Math/MathVista", "testmini", "verifier", 33.33),
        ("gauges", None, "official", 66.67),
        ("gauges", None, "verifier", 33.33),
    ]
    first = card.data.eval_results[0]
    # Wilson's interval of 2 of 3.
    assert first.metric_args == {"protocol": "official", "n": 3, "interval_95": [20.77, 93.85]}
    assert (first.metric_type, first.metric_name) == ("accuracy", "accuracy in percent (official)")


def test_one_protocol_can_be_chosen_and_the_model_named(tmp_path: Path) -> None:
    text = model_index([make(tmp_path / "a")], protocol="verifier", name="mine")
    (index,) = yaml.safe_load(text)["model-index"]
    assert index["name"] == "mine"
    assert [one["value"] for one in index["results"][0]["metrics"]] == [33.33]


def test_results_of_several_models_need_a_name(tmp_path: Path) -> None:
    folders = [make(tmp_path / "a"), make(tmp_path / "b", "mathvision", model="other")]
    with pytest.raises(UserError, match="of 2 models: me/my_model-7B, other"):
        model_index(folders)
    assert yaml.safe_load(model_index(folders, name="both"))["model-index"][0]["name"] == "both"


def test_controls_and_protocols_without_a_score_are_left_out(tmp_path: Path) -> None:
    control = make(tmp_path / "b", control="blank")
    unjudged = result(tmp_path / "c", [row("a", UNJUDGED, RIGHT)], "mathverse", {"model": "me/my_model-7B"})
    (index,) = yaml.safe_load(model_index([make(tmp_path / "a"), control, unjudged]))["model-index"]
    values = {one["dataset"]["name"]: [m["value"] for m in one["metrics"]] for one in index["results"]}
    assert values == {"MathVista": [66.67, 33.33], "MathVerse": [100.0]}
    with pytest.raises(UserError, match="only controls"):
        model_index([control])


def test_declared_benchmarks_have_their_data_set_and_share_no_entry(tmp_path: Path) -> None:
    folders = [make(tmp_path / name, name) for name in ("mmmu_pro", "mmmu_pro_vision", "docvqa")]
    card = ModelCard(f"---\n{model_index(folders, protocol='official')}---\n")
    found = [(one.dataset_name, one.dataset_type, one.dataset_split) for one in card.data.eval_results]
    assert found == [
        ("MMMU-Pro (standard, 10 options)", "MMMU/MMMU_Pro", "test"),
        ("MMMU-Pro (vision)", "MMMU/MMMU_Pro", "test"),
        ("DocVQA (validation)", "lmms-lab/DocVQA", "validation"),
    ]


def test_a_users_yaml_brings_its_title_and_data_set_and_python_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "gauges.yaml"
    file.write_text(
        "gauges: {title: Gauges of ours, source: own, data: {hub: me/gauges, splits: test}, read_from: own,"
        " columns: {id: id, question: q, answer: a}, prompt: {text: q}, answer: {kind: text}}"
    )
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    folders = [
        make(tmp_path / "a", "gauges", benchmark=str(file)),
        make(tmp_path / "b", "mathvista", benchmark=str(trap)),
    ]
    card = ModelCard(f"---\n{model_index(folders, protocol='official')}---\n")
    found = [(one.dataset_name, one.dataset_type) for one in card.data.eval_results]
    assert found == [("Gauges of ours", "me/gauges"), ("mathvista", "mathvista")]
    assert not (tmp_path / "ran").exists()
