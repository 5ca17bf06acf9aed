"""``mm-cpgd benchmarks``."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from eval.benchmarks import benchmark_names
from mm_cpgd.cli.main import app
from mm_cpgd.errors import UserError

RUNNER = CliRunner(env={"COLUMNS": "200"})


def test_the_command_lists_every_benchmark() -> None:
    result = RUNNER.invoke(app, ["benchmarks"])
    assert result.exit_code == 0
    listed = {line.split()[0] for line in result.output.splitlines() if line.strip()}
    assert set(benchmark_names()) <= listed


def test_the_command_shows_one_benchmark_in_any_spelling() -> None:
    result = RUNNER.invoke(app, ["benchmarks", "MMMU-Pro"])
    assert "Yue et al. 2024" in result.output
    assert "the benchmark's own rule" in result.output
    assert "draws an option at random" in result.output


def test_the_command_shows_a_users_declaration(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine: {title: Only easy rows, subset_of: mathvision, where: {level: 1}}")
    assert "Only easy rows" in RUNNER.invoke(app, ["benchmarks", str(file)]).output


def test_an_unknown_name_is_reported() -> None:
    result = RUNNER.invoke(app, ["benchmarks", "mmmuu"])
    assert isinstance(result.exception, UserError)
