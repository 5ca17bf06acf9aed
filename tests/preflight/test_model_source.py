"""Where a plan finds a model's dimensions, and what it takes from a hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.model import EMBEDDED
from mm_cpgd.preflight import model_source
from mm_cpgd.preflight.model_source import ModelOutOfReach, find_config, has_processor, listed_models
from tests.fakes.hub_server import serving
from tests.paths import ROOT

TINY = EMBEDDED["embedded:tiny"]
SMALL = [file for file in TINY.iterdir() if file.suffix in (".json", ".jinja")]


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and an empty cache."""
    monkeypatch.setattr(model_source, "hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def config_folder(tmp_path: Path) -> Path:
    """A folder with a model's config and nothing else."""
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(TINY / "config.json", folder)
    return folder


def test_a_folder_needs_a_config_and_no_weights(config_folder: Path) -> None:
    found = find_config(PolicyConfig(model=str(config_folder)))
    assert found.config.model_type == "qwen2_5_vl"
    assert found.source == f"config.json in {config_folder}"
    assert not has_processor(PolicyConfig(model=str(config_folder)))
    assert has_processor(PolicyConfig(model=str(TINY)))


@pytest.mark.usefixtures("_no_network")
def test_the_dimensions_of_public_models_need_no_network() -> None:
    found = find_config(PolicyConfig(model="Qwen/Qwen2.5-VL-32B-Instruct"))
    assert found.config.get_text_config().num_hidden_layers == 64
    assert "come with mm-cpgd" in found.source


@pytest.mark.usefixtures("_no_network")
def test_a_model_out_of_reach_is_one_message_with_what_to_do() -> None:
    with pytest.raises(
        ModelOutOfReach, match=r"give --model-config FILE .*hf download nobody/nothing config"
    ):
        find_config(PolicyConfig(model="nobody/nothing"))
    assert not has_processor(PolicyConfig(model="nobody/nothing"))


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", ["", "config.json"])
def test_a_file_or_folder_given_by_hand_takes_the_models_place(config_folder: Path, name: str) -> None:
    found = find_config(PolicyConfig(model="nobody/nothing"), config_folder / name)
    assert found.source == f"{config_folder / 'config.json'} (--model-config)"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "unknown_to_all"}'])
def test_a_config_that_cannot_be_used_is_one_message(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"config\.json cannot be used"):
        find_config(PolicyConfig(model="nobody/nothing"), file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        find_config(PolicyConfig(model="nobody/nothing"), tmp_path / "gone.json")


def test_listed_models_are_hub_names_with_their_source() -> None:
    assert {"Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"} <= set(listed_models())
    for name in listed_models():
        listed = json.loads((model_source.MODELS / f"{name.partition('/')[2]}.json").read_text())
        assert f"huggingface.co/{name}" in listed["source"]


def plan(tmp_path: Path, endpoint: str, model: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Plan a run in a process of its own, whose hub is at ``endpoint`` and whose cache is empty."""
    file = tmp_path / "run.yaml"
    file.write_text(
        f"policy: {{model: {model}}}\nalgorithm: {{recipe: cpgd}}\noutput: {tmp_path}/out\n"
        "data: {train: {path: 'generated:clock', limit: 3}}\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "mm_cpgd", "train", str(file), "--dry-run", *options]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_of_a_hub_model_the_config_and_the_processor_are_fetched_and_no_weights_or_code(
    tmp_path: Path,
) -> None:
    config = json.loads((TINY / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.py--evil.Config"}
    files = {f"me/tiny/{file.name}": file.read_bytes() for file in SMALL}
    files |= {"me/tiny/config.json": json.dumps(config).encode(), "me/tiny/model.safetensors": b"weights"}
    with serving(files) as hub:
        done = plan(tmp_path, hub.url, "me/tiny", "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert f"config.json of me/tiny at {hub.url}" in done.stdout
    assert "First prompt, as the model reads it" in done.stdout
    assert "config.json" in hub.files
    assert not [name for name in hub.files if name.endswith((".safetensors", ".bin", ".py"))]


def test_a_hub_that_does_not_know_the_model_ends_the_plan(tmp_path: Path) -> None:
    with serving({"me/tiny/config.json": b"{}"}) as hub:
        done = plan(tmp_path, hub.url, "me/misspelt", "--no-processor")
        wanted = plan(tmp_path, hub.url, "me/misspelt")
    assert "unknown: policy.model='me/misspelt'" in done.stdout
    assert wanted.returncode == 2
    assert f"{hub.url} does not give its config.json" in wanted.stderr
    assert "Traceback" not in wanted.stderr
