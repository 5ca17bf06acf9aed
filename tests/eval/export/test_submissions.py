"""Submission files of MathVista and MMMU, in the formats of their repositories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data import Example
from eval.benchmark import Benchmark, Response, ScoredRow
from eval.export.submissions import mathvista_submission, mmmu_submission
from eval.results import EvalResult, read_result, write_result
from eval.scoring.stored import score
from mm_cpgd.errors import UserError
from rewards import Status, Verdict
from tests.paths import DATASETS

QUESTIONS = {
    "1": {
        "pid": "1", "question": "How far?", "image": "images/1.jpg", "choices": None, "unit": "m",
        "precision": 1.0, "answer": "1.2", "question_type": "free_form", "answer_type": "float",
        "metadata": {"split": "testmini", "language": "english", "source": "SciBench", "category": "c",
                     "task": "t", "context": "x", "grade": "college", "skills": ["scientific reasoning"]},
        "query": "Hint: …\nQuestion: How far?",
    },
    "2": {
        "pid": "2", "question": "Which?", "image": "images/2.jpg", "choices": ["cat", "dog"], "unit": None,
        "precision": None, "answer": "dog", "question_type": "multi_choice", "answer_type": "text",
        "metadata": {"split": "testmini", "language": "english", "source": "IQTest", "category": "c",
                     "task": "t", "context": "x", "grade": "college", "skills": []},
        "query": "Hint: …\nQuestion: Which?",
    },
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "testmini.json"
    path.write_text(json.dumps(QUESTIONS))
    return path


def mathvista(data: Path, answers: list[dict[str, Any]], **options: Any) -> EvalResult:
    predictions = data.with_name("answers.jsonl")
    predictions.write_text("".join(json.dumps(one) + "\n" for one in answers))
    return score("mathvista", predictions, output=data.with_name("out"), data=data, **options)


def test_mathvista_gets_the_rows_of_its_data_with_the_responses(data: Path) -> None:
    answers = [{"id": "1", "response": "It is 1.2 m."}, {"id": "2", "response": "(B)", "extraction": "B"}]
    made = mathvista_submission(mathvista(data, answers))
    assert made.content == {
        "1": {**QUESTIONS["1"], "response": "It is 1.2 m."},
        "2": {**QUESTIONS["2"], "response": "(B)", "extraction": "B"},
    }
    (note,) = made.notes
    assert note.startswith("1 of 2 responses have no LLM's extraction yet")


def test_a_question_without_a_response_stays_in_mathvistas_total(data: Path) -> None:
    made = mathvista_submission(mathvista(data, [{"id": "2", "response": "B", "extraction": "B"}]))
    assert made.content["1"] == {**QUESTIONS["1"], "response": "", "extraction": ""}
    assert made.notes == ["1 of 2 questions have no response; they count as wrong"]


def test_the_words_of_a_refusal_are_no_response_to_submit(data: Path) -> None:
    refused = {"status": "refused", "reason": "the model refused: I cannot"}
    answers = [
        {"id": "1", "response": "I cannot", "failure": refused},
        {"id": "2", "response": "B", "extraction": "B"},
    ]
    made = mathvista_submission(mathvista(data, answers))
    assert made.content["1"] == {**QUESTIONS["1"], "response": "", "extraction": ""}
    assert made.notes == ["1 of 2 questions have no response; they count as wrong"]


def test_what_the_judge_extracted_is_mathvistas_extraction(data: Path) -> None:
    result = mathvista(data, [{"id": "1", "response": "1.2"}, {"id": "2", "response": "the dog"}])
    for row, extracted, verdict in zip(result.rows, ("1.2", "not judged"), (1.0, None), strict=True):
        row["protocols"]["judge"] = {"extracted": extracted, "score": verdict}
    made = mathvista_submission(result)
    assert made.content["1"]["extraction"] == "1.2"
    assert "extraction" not in made.content["2"]


def test_mathvistas_file_is_scored_here_as_the_result_was(data: Path, tmp_path: Path) -> None:
    answers = [
        {"id": "1", "response": "1.24", "extraction": "1.24"},
        {"id": "2", "response": "A", "extraction": "A"},
    ]
    before = mathvista(data, answers)
    file = tmp_path / "submission.json"
    file.write_text(json.dumps(mathvista_submission(before).content))
    again = score("mathvista", file, output=tmp_path / "again", data=data)
    assert [row["score"] for row in again.rows] == [row["score"] for row in before.rows] == [1.0, 0.0]


def test_another_benchmark_or_other_data_are_refused(data: Path, tmp_path: Path) -> None:
    result = mathvista(data, [{"id": "1", "response": "1.2"}, {"id": "2", "response": "B"}])
    with pytest.raises(UserError, match="of mathvision, not of mathvista"):
        mathvista_submission(EvalResult({**result.summary, "benchmark": "mathvision"}, result.rows))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"2": QUESTIONS["2"]}))
    with pytest.raises(UserError, match="'1' is not in the data"):
        mathvista_submission(result, data=str(other))
    with pytest.raises(UserError, match="has no sample 3"):
        mathvista_submission(result, sample=3)


@pytest.mark.shared
@pytest.mark.skipif(not (DATASETS / "mathvista").is_dir(), reason="needs ../shared/datasets/mathvista")
def test_the_benchmarks_own_output_comes_back_as_it_was_published(tmp_path: Path) -> None:
    folder = DATASETS / "mathvista"
    published = folder / "predictions" / "bard.json"
    result = score("mathvista", published, output=tmp_path / "out", data=folder)
    made = mathvista_submission(result).content
    own = json.loads(published.read_text(encoding="utf-8"))
    assert list(made) == list(own)
    names = ("pid", "question", "choices", "unit", "precision", "answer", "question_type", "answer_type")
    for pid, one in made.items():
        assert {name: one[name] for name in ("response", "extraction")} == {
            name: own[pid][name] for name in ("response", "extraction")
        }
        assert {name: one[name] for name in names} == {name: own[pid][name] for name in names}


def mmmu(folder: Path, rows: list[tuple[str, str, str | None, tuple[str, ...]]]) -> EvalResult:
    """Write a result of id, response, extracted answer and choices."""
    scored = [
        ScoredRow(
            Example(name, "?", "A", choices=choices),
            Response(name, text),
            {"official": Verdict(0.0, Status.WRONG, extracted, "wrong")},
        )
        for name, text, extracted, choices in rows
    ]
    benchmark = Benchmark(
        "mmmu",
        "none",
        lambda source: [],
        lambda one: "",
        lambda one, response: Verdict(0.0, Status.WRONG, None, ""),
    )
    write_result(folder, benchmark, scored, {})
    return read_result(folder)


def test_mmmu_gets_letters_and_open_answers_by_id(tmp_path: Path) -> None:
    options = ("75", "76")
    made = mmmu_submission(
        mmmu(
            tmp_path,
            [
                ("validation_Accounting_1", "so (B)", "(B)", options),
                ("validation_Accounting_2", "it is 76", "76", options),
                ("validation_Art_Theory_3", "who knows", None, options),
                ("validation_Art_4", "it is C", "C", options),
                ("test_Math_5", "about 36 watts", "36", ()),
                ("test_Math_6", "about thirty-six", None, ()),
            ],
        )
    )
    assert made.content == {
        "validation_Accounting_1": "B",
        "validation_Accounting_2": "B",
        "validation_Art_Theory_3": "",
        "validation_Art_4": "",
        "test_Math_5": "36",
        "test_Math_6": "about thirty-six",
    }
    assert made.notes == ["2 multiple-choice responses name no option; their answers are empty"]


def test_other_ids_than_mmmus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'q1' is no id of MMMU"):
        mmmu_submission(mmmu(tmp_path, [("q1", "B", "B", ())]))
