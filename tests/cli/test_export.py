"""``mm-cpgd export`` from the command line: a trained policy's results, files, and messages."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from eval.run import evaluate
from mm_cpgd.cli.main import main
from tests.fakes.results import RIGHT, WRONG, result, row
from tests.fakes.scoring import OWN_BENCHMARK, write_lines
from tests.paths import ROOT

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``mm-cpgd export``; return what it printed to both streams."""

    def command(*arguments: object, status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        assert (caught.value.code or 0) == status, printed.err
        return printed.out, printed.err

    return command


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Results of two models, the second with a note."""
    rows = [row(f"q{place}", RIGHT if place < 10 else WRONG) for place in range(30)]
    better = [row(f"q{place}", RIGHT if place < 20 else WRONG) for place in range(30)]
    a = result(tmp_path / "a" / "mathvista", rows, "mathvista", {"model": "base_a"})
    b = result(tmp_path / "b" / "mathvista", better, "mathvista", {"model": "x|y", "temperature": 1.0})
    return a, b


def test_results_of_the_embedded_policy_become_a_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(OWN_BENCHMARK)
    questions = [{"id": "a", "question": "2 + 2?", "answer": "4", "digits": 1}]
    data = write_lines(tmp_path / "questions.jsonl", questions)
    evaluate("embedded:tiny", str(tmp_path / "sums.py"), output=tmp_path / "runs", data=data, use_cache=False)
    out, _ = run(tmp_path / "runs", "--format", "csv")
    (line,) = csv.DictReader(io.StringIO(out))
    assert (line["model"], line["sums (official) n"]) == ("embedded:tiny", "1")
    assert line["sums (official)"] in ("0.00", "100.00")


def test_the_difference_to_the_baseline_is_marked(run: Run, two: tuple[Path, Path]) -> None:
    out, _ = run(*two, "--baseline", two[0])
    assert r"| x\|y | 66.7 (48.8 – 80.8), +33.3\* |" in out
    assert r"| base\_a | 33.3 (19.2 – 51.2) |" in out


def test_notes_of_a_csv_file_are_warnings_outside_it(
    run: Run, two: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "new" / "table.csv"
    out, err = run(*two, "--baseline", "base_a", "--format", "csv", "--output", file)
    assert out == f"{file}\n"
    assert err == "! x|y, mathvista (official): settings differ: temperature\n"
    assert len(list(csv.reader(file.open()))) == 3


def test_a_folder_of_results_stands_for_all_of_them(run: Run, two: tuple[Path, Path]) -> None:
    by_folder = run(two[0].parent, two[1].parent, "--format", "latex", "--baseline", two[0].parent)
    assert by_folder == run(*two, "--format", "latex", "--baseline", "base_a")


def test_labels_protocol_and_name_reach_the_export(run: Run, two: tuple[Path, Path]) -> None:
    out, _ = run(*two, "--label", "before", "--label", "after", "--protocol", "official")
    assert "| before |" in out
    out, _ = run(two[0], "--format", "model-index", "--name", "mine")
    assert yaml.safe_load(out)["model-index"][0]["name"] == "mine"


def test_mmmus_submission_is_json_with_its_notes_outside(run: Run, tmp_path: Path) -> None:
    rows = [row("validation_Math_1", RIGHT, choices=("3", "4")), row("validation_Math_2", WRONG)]
    out, err = run(result(tmp_path / "a", rows, "mmmu"), "--format", "mmmu")
    assert json.loads(out) == {"validation_Math_1": "B", "validation_Math_2": "5"}
    assert err == ""


def test_reference_and_export_need_no_torch() -> None:
    code = (
        "import sys; from eval.export import matrix, model_index, submissions, tables; "
        "from eval.reference import against, page; import mm_cpgd.cli.export, mm_cpgd.cli.reference; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("file_format", ["mathvista", "mmmu"])
def test_a_submission_is_of_one_result(run: Run, two: tuple[Path, Path], file_format: str) -> None:
    _, err = run(*two, "--format", file_format, status=2)
    assert "a submission is of one result, not of 2" in err


def test_a_file_that_cannot_be_written_is_one_message(
    run: Run, two: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    _, err = run(two[0], "--output", tmp_path / "file" / "x", status=2)
    assert "cannot be written" in err
    assert "name another --output" in err
