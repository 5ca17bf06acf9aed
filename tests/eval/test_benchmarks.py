"""Lookup of benchmarks: by name, and in a user's file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.benchmark import DataSource, Response
from eval.benchmarks import benchmark_names, find_benchmark, python_names
from mm_cpgd.errors import UserError
from tests.fakes.scoring import OWN_BENCHMARK


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "my_sums.py"
    file.write_text(OWN_BENCHMARK)
    return file


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_is_found_by_its_name(name: str) -> None:
    assert find_benchmark(name).name == name


def test_case_and_dashes_of_a_name_do_not_matter() -> None:
    assert find_benchmark("We-Math") is find_benchmark("wemath")


def test_an_unknown_name_is_reported_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no benchmark 'mathvers': did you mean 'mathverse'"):
        find_benchmark("mathvers")


def test_a_users_benchmark_is_forty_lines_of_loader_prompt_and_scoring(own: Path, tmp_path: Path) -> None:
    row = {"id": "a", "question": "2 + 2?", "answer": "4", "digits": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    found = find_benchmark(str(own))
    (first,) = found.load(DataSource(str(tmp_path / "rows.jsonl")))
    assert found.prompt(first) == "2 + 2? Answer with a number."
    assert found.official(first, Response("a", "it is 4")).score == 1
    assert found.verifier(first, Response("a", r"so \boxed{4.0}")).score == 1
    assert found.groups(first) == {"digits": ["1"]}
    assert len(OWN_BENCHMARK.strip().splitlines()) <= 45


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("x = 1", "defines no `benchmark`"),
        ("benchmark = 3", "has a int as `benchmark`"),
        ("raise SystemExit(0)", "cannot be imported: SystemExit"),
    ],
)
def test_a_file_that_is_no_benchmark_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError, match=says):
        find_benchmark(str(file))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no Python file .*gone\.py"):
        find_benchmark(str(tmp_path / "gone.py"))


def test_nothing_that_scores_loads_torch_or_transformers() -> None:
    modules = [
        "eval.scoring.stored",
        "mm_cpgd.cli.score",
        "mm_cpgd.cli.results",
        "eval.comparison",
        "eval.benchmarks",
        "eval.scoring.summary",
    ]
    modules += [f"eval.benchmarks.{name}" for name in python_names()]
    modules += ["eval.declared.build", "eval.declared.overview", "mm_cpgd.cli.benchmarks"]
    code = (
        f"import {', '.join(modules)}, sys\n"
        "assert not {'torch', 'transformers', 'mm_cpgd.policy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
