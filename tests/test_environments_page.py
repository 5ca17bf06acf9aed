"""docs/environments.md: its code runs, and its tables name every tool, score, count and option."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.generated import generate
from mm_cpgd.config.loading import load_config
from mm_cpgd.environments import ToolEnvironment, get_environment
from mm_cpgd.environments.call_formats import find_calls, write_call
from mm_cpgd.environments.scores import SCORES
from mm_cpgd.environments.tools import TOOLS
from mm_cpgd.training.rollouts.build import load_environment
from tests.paths import DOCS, ROOT

PAGE = (DOCS / "environments.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def table(header: str) -> dict[str, str]:
    """Return the rows of the table with this header, the names of the first cell each with the second."""
    lines = PAGE.split(f"| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [line.strip("|").split("|") for line in lines]
    return {name: cells[1] for cells in rows for name in re.findall(r"`(\w+)`", cells[0])}


def test_the_example_of_a_tool_is_the_file() -> None:
    file = (ROOT / "examples/environments/quarters.py").read_text(encoding="utf-8")
    assert file.endswith(CODE[0])
    assert len(CODE[0].splitlines()) <= 40


@pytest.mark.parametrize(("code", "name"), zip(CODE[:2], ["environment", "Hints"], strict=True))
def test_the_examples_run_as_they_stand(code: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code)
    made = get_environment(f"{file}:{name}")(0)
    example = generate(("detail",), 1)[0]
    assert made.reset(example)[-1].text.endswith(example.question)
    assert made.step(f"<answer>{example.answer}</answer>").done


def test_the_class_for_trl_is_made() -> None:
    names: dict[str, Any] = {}
    exec(compile(CODE[2], "page", "exec"), names)
    assert callable(names["Looking"]().zoom)
    assert len(CODE) == 3


def test_the_calls_of_the_page_are_read() -> None:
    first, second = find_calls(PAGE.split("### How calls are written")[1].split("## A tool")[0])
    assert (first.name, first.problem) == ("zoom", "")
    assert TOOLS["zoom"].from_texts(second.arguments) == first.arguments


def test_the_config_of_the_page_makes_an_environment() -> None:
    block = yaml.safe_load(PAGE.split("```yaml\n")[1].split("```")[0])["rollout"]["environment"]
    made = get_environment(block["name"], block["options"])(0)
    assert set(block["scores"]) <= set(made.environment.scores)


def test_the_config_of_the_example_is_the_file_and_is_found_beside_it(tmp_path: Path) -> None:
    block = next(block for block in PAGE.split("```yaml\n")[1:] if block.startswith("extends: quickstart"))
    file = ROOT / "examples/environments/quarters.yaml"
    assert file.read_text(encoding="utf-8").endswith(block.split("```")[0])
    for name in ("quarters.py", "quarters.yaml"):
        shutil.copy(file.parent / name, tmp_path)
    config = load_config(tmp_path / "quarters.yaml")
    chosen = config.rollout.environment
    assert chosen is not None
    assert chosen.name == f"{tmp_path}/quarters.py:environment"
    made = load_environment(config)
    assert made is not None
    looked = made(0)
    looked.reset(generate(("detail",), 1)[0])
    observation = looked.step(write_call("quarter", {"which": "upper left"}))
    assert observation.scores == dict.fromkeys(chosen.scores, -0.1)


@pytest.mark.slow
def test_the_example_trains(
    wordy_folder: Path, tmp_path: Path, on_cpu: None, read_rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    from mm_cpgd.training.run import train

    small = [
        "training.iterations=1",
        "rollout.prompts=2",
        "training.mini_batch_prompts=2",
        "data.eval.limit=2",
    ]
    chosen = [f"policy.model={wordy_folder}", f"output={tmp_path}/run", "training.threads=1", *small]
    train(load_config(ROOT / "examples/environments/quarters.yaml", chosen))
    _, step, *_ = read_rows(tmp_path / "run")
    assert step["conversation/turns"] >= 1
    assert step["conversation/failed"] == step["reward/unscored"] == 0


def test_the_tables_are_complete() -> None:
    tools = table("tool | arguments | result")
    assert set(tools) == set(TOOLS)
    for name, arguments in tools.items():
        visible = [one.name for one in TOOLS[name].signature.parameters]
        assert re.findall(r"`(\w+)`", arguments) == visible
    assert set(table("score | given | value")) == set(SCORES)
    counts = ToolEnvironment(0, ["zoom"])
    counts.reset(generate(("detail",), 1)[0])
    assert set(table("count | calls")) == set(counts.step("").counts)


def test_the_options_have_the_defaults_of_the_page() -> None:
    options = table("option of `tools` | default | meaning")
    parameters = inspect.signature(ToolEnvironment).parameters
    assert set(options) <= set(parameters)
    described = {*options, "seed", "coordinates", "image_pixels", "factor", "min_pixels", "max_pixels"}
    assert set(parameters) == described
    for name in ("max_turns", "max_images"):
        assert options[name].strip() == str(parameters[name].default)
