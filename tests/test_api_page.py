"""docs/api.md: its examples run one after the other in an empty folder, and its tables name all exports."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from rewards import registry
from tests.paths import DOCS

PAGE = (DOCS / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
ROW = {"options": [], "solution": None, "level": 1, "subject": "counting", "image": "images/1.png"}


@pytest.fixture
def _mathvision(tmp_path: Path) -> None:
    """Two questions of MathVision in the published layout."""
    (tmp_path / "mathvision" / "images").mkdir(parents=True)
    Image.new("RGB", (56, 56), "red").save(tmp_path / "mathvision" / "images" / "1.png")
    rows = [{"id": str(i), "question": "How many?\n<image1>", "answer": str(i), **ROW} for i in (1, 2)]
    file = tmp_path / "mathvision" / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.usefixtures("on_cpu", "_mathvision")
def test_the_examples_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.fakes.training_runs import reset_accelerate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry.list_rules()  # imports the shipped ones, which is done once
    monkeypatch.setattr(registry, "_rules", dict(registry._rules))  # the page registers one
    names: dict[str, object] = {"__name__": "tests.api_page"}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"example {number}", "exec"), names)
        reset_accelerate()
    for file in ("run/report.html", "sft/final/config.json", "out/mathvision/summary.json", "page.html"):
        assert (tmp_path / file).is_file()
    printed = capsys.readouterr().out
    assert "1.0 \\frac{2}{4} equals 0.5" in printed
    assert "\n1 " in printed  # one usable row, and why the other is not
    assert "\n1.2\n" in printed  # accuracy, and brevity with its weight


@pytest.mark.parametrize("package", ["mm_cpgd", "rewards", "data", "eval"])
def test_the_table_of_a_package_names_all_that_it_exports(package: str) -> None:
    section = PAGE.split(f"\n## {package}:")[1].split("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    named = {name for code in re.findall(r"`([^`]+)`", table) for name in re.findall(r"^\w+", code)}
    exported = set(importlib.import_module(package).__all__) - {"__version__"}
    assert exported <= named


@pytest.mark.parametrize("package", ["mm_cpgd", "rewards", "data", "eval"])
def test_every_export_exists_and_has_a_docstring(package: str) -> None:
    module = importlib.import_module(package)
    for name in set(module.__all__) - {"__version__"}:
        assert getattr(module, name).__doc__
