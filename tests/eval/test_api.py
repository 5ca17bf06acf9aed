"""The Python interface of ``eval``: evaluate, score and compare in a few lines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import eval as evaluation
from eval.generate.cache import Generation
from eval.generate.decoding import Decoding
from eval.generate.generate import Job
from mm_cpgd.errors import UserError
from tests.fakes.scoring import OWN_BENCHMARK, write_lines

QUESTIONS = [
    {"id": "a", "question": "2 + 2?", "answer": "4", "digits": 1},
    {"id": "b", "question": "3 + 4?", "answer": "7", "digits": 1},
    {"id": "c", "question": "40 + 2?", "answer": "42", "digits": 2},
]


class Solver:
    """Generator that answers every question with the same text."""

    def __init__(self, text: str) -> None:
        self.text, self.prompts = text, list[str]()

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"model": "solver", "model_id": self.text}

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Generation]]:
        for job in jobs:
            self.prompts.append(job.question.text)
            yield job, Generation(self.text, True, 1)


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a benchmark, its questions and stored predictions; caches stay in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "sums.py").write_text(OWN_BENCHMARK)
    write_lines(tmp_path / "questions.jsonl", QUESTIONS)
    write_lines(tmp_path / "predictions.jsonl", [{"id": "a", "response": "4"}, {"id": "b", "response": "8"}])
    return tmp_path


def evaluate(folder: Path, generator: Solver, name: str = "out", **options: Any) -> Any:
    return evaluation.evaluate(
        "solver", str(folder / "sums.py"), output=folder / name, data=folder / "questions.jsonl",
        generator=generator, **options,
    )  # fmt: skip


def test_evaluate_returns_the_stored_result(sums: Path) -> None:
    result = evaluate(sums, Solver("It is 4"))
    assert result.accuracy == 1 / 3
    assert [row["id"] for row in result.rows] == ["a", "b", "c"]
    assert result == evaluation.read_result(sums / "out" / "sums")
    assert result.summary["settings"]["command"] is None


def test_evaluate_uses_the_cache_unless_it_is_switched_off(sums: Path) -> None:
    evaluate(sums, Solver("4"))
    again, uncached = Solver("4"), Solver("4")
    evaluate(sums, again)
    evaluate(sums, uncached, use_cache=False)
    assert (again.prompts, len(uncached.prompts)) == ([], 3)


def test_evaluate_takes_the_fields_of_the_settings(sums: Path) -> None:
    result = evaluate(sums, Solver("4"), limit=2, protocols=["verifier"], system_prompt="Add.")
    assert len(result.rows) == 2
    assert result.summary["protocol"] == "verifier"
    assert result.summary["settings"]["system_prompt"] == "Add."


def test_an_unknown_setting_is_refused_with_the_nearest_one(sums: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        evaluate(sums, Solver("4"), temprature=1.0)


def test_evaluate_runs_a_local_model_and_its_controls(tmp_path: Path, tiny_folder: Path) -> None:
    data = tmp_path / "mathvision"
    (data / "images").mkdir(parents=True)
    rows = []
    for number in range(3):
        name = f"images/{number}.png"
        Image.new("RGB", (60 + number, 60), (number, 0, 0)).save(data / name)
        rows.append(
            {"id": str(number), "question": "How many? <image1>", "options": [], "answer": "3", "image": name}
            | {"level": 1, "subject": "counting"}
        )
    write_lines(data / "test.jsonl", rows)
    result = evaluation.evaluate(
        model=str(tiny_folder), benchmark="mathvision", data=data, output=tmp_path / "out", limit=2,
        max_new_tokens=3, controls=("blank",), use_cache=False,
    )  # fmt: skip
    assert [row["tokens"] for row in result.rows] == [3, 3]
    control = evaluation.read_result(tmp_path / "out" / "mathvision-blank")
    assert control.summary["control"]["protocols"]["official"]["n"] == 2
    # Three tokens are too few for an answer.
    assert result.accuracy == 0
    assert any("no accuracy could be lost without them" in flag for flag in control.summary["flags"])


def test_score_returns_the_stored_result(sums: Path) -> None:
    result = evaluation.score(
        str(sums / "sums.py"), sums / "predictions.jsonl", output=sums / "scored",
        data=sums / "questions.jsonl", protocols=("official", "verifier"), only_answered=True,
    )  # fmt: skip
    assert result.accuracy == 0.5
    assert result == evaluation.read_result(sums / "scored")
    assert result.summary["settings"]["data"] == str(sums / "questions.jsonl")


def test_score_writes_what_the_command_writes(sums: Path) -> None:
    options: dict[str, Any] = {"data": str(sums / "questions.jsonl"), "protocols": ["official"]}
    evaluation.score(str(sums / "sums.py"), sums / "predictions.jsonl", output=sums / "api", **options)
    command = ["score", "--benchmark", sums / "sums.py", "--data", sums / "questions.jsonl"]
    command += ["--predictions", sums / "predictions.jsonl", "--output", sums / "cli"]
    subprocess.run([sys.executable, "-m", "mm_cpgd", *map(str, command)], check=True, capture_output=True)
    for name in ("summary.json", "rows.jsonl"):
        assert (sums / "api" / name).read_text() == (sums / "cli" / name).read_text()


def test_score_does_not_overwrite_a_result_by_default(sums: Path) -> None:
    arguments = str(sums / "sums.py"), sums / "predictions.jsonl"
    options: dict[str, Any] = {"output": sums / "scored", "data": sums / "questions.jsonl"}
    evaluation.score(*arguments, **options)
    with pytest.raises(UserError, match="already contains a result"):
        evaluation.score(*arguments, **options)
    evaluation.score(*arguments, **options, overwrite=True)


def test_the_protocol_judge_needs_a_judge(sums: Path) -> None:
    with pytest.raises(UserError, match="needs a judge"):
        evaluation.score(
            str(sums / "sums.py"), sums / "predictions.jsonl", output=sums / "scored",
            data=sums / "questions.jsonl", protocols=["judge"],
        )  # fmt: skip
    assert not (sums / "scored").exists()


def test_compare_takes_results_and_folders(sums: Path) -> None:
    four = evaluate(sums, Solver("4"), "four")
    evaluate(sums, Solver("42"), "two")
    comparison = evaluation.compare(four, sums / "two" / "sums")
    assert (comparison.overall.gained, comparison.overall.lost) == (1, 1)
    assert json.dumps(comparison.as_dict())


def test_every_exported_name_exists_and_is_listed() -> None:
    for name in evaluation.__all__:
        assert getattr(evaluation, name).__name__ == name
        assert name in dir(evaluation)
    with pytest.raises(AttributeError, match="no_such_name"):
        evaluation.no_such_name  # noqa: B018


def test_scoring_through_the_interface_loads_no_torch() -> None:
    code = (
        "import eval, sys\n"
        "eval.score, eval.compare, eval.evaluate, eval.find_benchmark('mathvista'), eval.Settings\n"
        "assert not {'torch', 'transformers', 'typer', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
