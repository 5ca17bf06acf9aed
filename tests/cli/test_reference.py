"""``mm-cpgd reference`` from the command line, and the published numbers that other commands mention."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_cpgd.cli.main import main
from tests.fakes.results import RIGHT, WRONG, result, row
from tests.paths import DOCS

SETTINGS = {
    "model": "Qwen/Qwen2.5-VL-7B-Instruct", "max_new_tokens": 2048, "temperature": 0.0, "min_pixels": None,
    "max_pixels": 1003520, "system_prompt": "", "first_prompt": "How many?",
}  # fmt: skip
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``mm-cpgd``; return what it printed, or its one message where it ends with status 2."""
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        if caught.value.code == 2:
            assert printed.err.count("mm-cpgd: ") == 1, printed.err
            return printed.err
        assert not caught.value.code
        return printed.out

    return command


def make(folder: Path, **settings: object) -> Path:
    rows = [row(f"q{place}", RIGHT if place < 13 else WRONG) for place in range(20)]
    return result(folder, rows, "mathvista", {**SETTINGS, **settings})


def test_the_numbers_of_a_model_are_listed_with_their_sources(run: Run) -> None:
    printed = run("reference", "--model", "Qwen/Qwen2.5-VL-7B-Instruct", "--benchmark", "mathvista")
    assert printed.count("│ Qwen2.5-VL-7B │ mathvista │") == 8
    assert "68.2" in printed
    assert "arXiv 2505.12504, Table 1, https://arxiv.org/abs/2505.12504" in printed
    assert "mathvision" not in printed.split("┘")[0]


def test_a_part_of_a_name_lists_all_models_that_contain_it(run: Run, tmp_path: Path) -> None:
    run("reference", "--model", "rethinker", "--json", tmp_path / "x.json")
    found = json.loads((tmp_path / "x.json").read_text())
    assert {one["model"] for one in found} == {f"VL-Rethinker-{size}B" for size in (7, 32, 72)}
    assert {one["settings"].get("max_pixels") for one in found if one["origin"] == "own run"} == {
        1003520,
        None,
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("--model", "quen2.5-vl-7b"),
            "no published number of 'quen2.5-vl-7b'; among the models are Qwen2.5-VL-7B",
        ),
        (("--benchmark", "mathvsta"), "no published number on 'mathvsta'"),
        (("--table", "absent.yaml"), "absent.yaml cannot be read"),
        (("absent",), "absent is not a result folder"),
    ],
)
def test_what_is_not_there_is_one_message(run: Run, options: tuple[str, ...], says: str) -> None:
    assert says in run("reference", *options)


def test_a_result_is_compared_with_the_numbers_of_its_model(run: Run, tmp_path: Path) -> None:
    printed = run("reference", make(tmp_path / "a"), "--json", tmp_path / "x.json")
    assert "model: Qwen2.5-VL-7B (by its name)" in printed
    assert "! max_pixels: 1,000,000 there, 1,003,520 here" in printed
    (found,) = json.loads((tmp_path / "x.json").read_text())
    (omni,) = [one for one in found["comparisons"] if "Omni" in one["published"]["source"]]
    assert omni["difference"] == pytest.approx(65 - 68.2)
    assert omni["inside"] is True


def test_a_folder_of_results_stands_for_all_of_them(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "all" / "mathvista")
    make(tmp_path / "all" / "mathvista-blank", control="blank")
    printed = run("reference", tmp_path / "all")
    assert printed.count(": mathvista\n") == 2
    assert "a control with replaced images is not compared" in printed


def test_an_unknown_model_is_asked_for_and_can_be_named(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "a", model="runs/mine/final")
    assert "no published number of 'runs/mine/final'; say which it is: --model NAME" in run(
        "reference", folder
    )
    assert "model: MM-Eureka-7B (by --model)" in run("reference", folder, "--model", "MM-Eureka-7B")


def test_a_model_trained_from_a_published_one_is_said_to_be_so(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "final"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct"}))
    printed = run("reference", make(tmp_path / "a", model=str(model)))
    assert "its configuration names Qwen/Qwen2.5-VL-7B-Instruct as its origin" in printed
    assert "if it was trained since, its numbers differ" in printed


def test_a_table_of_the_user_is_compared_too(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "mine.yaml"
    table.write_text(
        "{source: Mine, url: 'https://example.org', read: from it, rule: official, origin: own run,\n"
        " columns: [{benchmark: mathvista}], rows: [{model: mine-7B, numbers: [99.0]}]}"
    )
    printed = run("reference", make(tmp_path / "a", model="me/mine-7b"), "--table", table)
    assert "99.0" in printed
    assert "-34.0" in printed


def test_the_page_of_the_documents_is_printed(run: Run) -> None:
    assert run("reference", "--markdown") == (DOCS / "reference.md").read_text(encoding="utf-8")


def test_the_page_of_a_result_has_the_published_numbers(run: Run, tmp_path: Path) -> None:
    run("report", make(tmp_path / "a"))
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "published for Qwen2.5-VL-7B on mathvista: 67.5 to 68.2" in page
    assert "settings differ from those behind 67.5" in page


def test_scored_predictions_end_with_the_published_numbers(run: Run, tmp_path: Path) -> None:
    question = {
        "pid": "1", "question": "How far?", "choices": None, "unit": None, "precision": None, "answer": "4",
        "question_type": "free_form", "answer_type": "integer", "metadata": {}, "image": "1.jpg",
    }  # fmt: skip
    (tmp_path / "testmini.json").write_text(json.dumps({"1": question}))
    answers = tmp_path / "Qwen2.5-VL-7B-Instruct_MathVista_MINI.jsonl"
    answers.write_text(json.dumps({"id": "1", "response": "4", "extraction": "4"}))
    printed = run(
        "score", "--benchmark", "mathvista", "--data", tmp_path, "--predictions", answers,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "published for Qwen2.5-VL-7B on mathvista: 67.5 to 68.2" in printed
    assert "the settings of these responses are not stored" in printed
