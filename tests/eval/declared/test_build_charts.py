"""Declared benchmarks of charts, tables and documents, on invented rows in their published layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.benchmark import DataSource, Response
from eval.benchmarks import find_benchmark
from rewards import Status
from tests.fakes.declared import loaded, scores
from tests.paths import DATASETS

CHARTQA = [
    {"type": "human_test", "question": "How many in 2010?", "answer": "14", "image": "0.png"},
    {"type": "augmented_test", "question": "Which is the largest?", "answer": "Peru", "image": "1.png"},
    {"type": "augmented_test", "question": "What share?", "answer": "0.57", "image": "2.png"},
    {"type": "human_test", "question": "How many in 2011?", "answer": "0", "image": "3.png"},
]


def test_chartqa_accepts_numbers_within_five_percent_and_equal_words(tmp_path: Path) -> None:
    benchmark, examples = loaded("chartqa", tmp_path, "test.json", CHARTQA)
    assert scores(benchmark, examples[0], ["14.7", "13.3", "14.71", "The value is 14.", "none"]) == [
        1,
        1,
        0,
        1,
        0,
    ]
    assert scores(benchmark, examples[1], ["peru", "It is Peru", "Peru.", "Chile", ""]) == [1, 1, 0, 0, 0]
    assert scores(benchmark, examples[2], ["57%", "57"]) == [1, 0]
    assert scores(benchmark, examples[3], ["0", "0.01"]) == [1, 0]


def test_chartqa_groups_by_human_and_augmented(tmp_path: Path) -> None:
    benchmark, examples = loaded("chartqa", tmp_path, "test.json", CHARTQA)
    assert [benchmark.groups(one) for one in examples[:2]] == [{"part": ["human"]}, {"part": ["augmented"]}]
    assert [one.id for one in examples] == ["0", "1", "2", "3"]
    assert benchmark.prompt(examples[0]) == (
        "<image>\nHow many in 2010?\nAnswer the question with a single word."
    )


DOCVQA = [
    {
        "questionId": "337",
        "question": "What is the date?",
        "question_types": ["handwritten", "form"],
        "image": "0.png",
        "docId": 279,
        "answers": ["1/8/93", "8 Jan 1993"],
        "data_split": "val",
    }
]


@pytest.mark.parametrize("name", ["docvqa", "infovqa"])
def test_docvqa_scores_by_similarity_to_the_nearest_answer(tmp_path: Path, name: str) -> None:
    benchmark, (example,) = loaded(name, tmp_path, "validation.json", DOCVQA)
    exact, near, far = (
        benchmark.official(example, Response("337", text)) for text in ("8 jan  1993", "1/8/92", "unknown")
    )
    assert (exact.score, exact.status) == (1, Status.CORRECT)
    # One of six characters differs.
    assert (near.score, near.status) == (pytest.approx(5 / 6), Status.PARTIAL)
    assert (far.score, far.status) == (0, Status.WRONG)
    assert benchmark.verifier(example, Response("337", "8 Jan 1993")).score == 1


def test_docvqa_groups_by_all_types_of_a_question(tmp_path: Path) -> None:
    benchmark, (example,) = loaded("docvqa", tmp_path, "validation.json", DOCVQA)
    assert benchmark.groups(example) == {"type": ["handwritten", "form"]}


TABMWP = {
    "33": {
        "question": "Is the function linear or nonlinear?",
        "choices": ["linear", "nonlinear"],
        "answer": "nonlinear",
        "unit": None,
        "table_title": None,
        "ques_type": "multi_choice",
        "ans_type": "boolean_text",
        "grade": 8,
        "split": "test",
    },
    "117": {
        "question": "How much did she spend?",
        "choices": None,
        "answer": "1,234.50",
        "unit": "$",
        "table_title": "Costs",
        "ques_type": "free_text",
        "ans_type": "decimal_number",
        "grade": 4,
        "split": "test",
    },
}


def test_tabmwp_scores_by_its_patterns(tmp_path: Path) -> None:
    benchmark, examples = loaded("tabmwp", tmp_path, "problems_test1k.json", TABMWP)
    assert [image.origin for image in examples[0].images] == ["tables/33.png"]
    assert scores(benchmark, examples[0], ["The answer is B.", "nonlinear", "(A)"]) == [1, 1, 0]
    assert scores(benchmark, examples[1], ["The answer is $1234.5.", "It was 12.", "nothing"]) == [1, 0, 0]
    assert "Options: (A) linear (B) nonlinear" in benchmark.prompt(examples[0])
    assert "How much did she spend? (Unit: $)" in benchmark.prompt(examples[1])
    assert benchmark.groups(examples[1]) == {
        "question type": ["free_text"],
        "answer type": ["decimal_number"],
        "grade": ["4"],
    }


@pytest.mark.shared
def test_tabmwps_own_rows_are_read_and_score_their_gold_answers() -> None:
    file = DATASETS / "tabmwp" / "problems_dev1k.json"
    if not file.exists():
        pytest.skip("needs the real data beside the project: ../shared/datasets/tabmwp")
    benchmark = find_benchmark("tabmwp")
    examples = benchmark.load(DataSource(str(file.parent), split="dev1k"))
    assert len(examples) == 1000
    wrong = [one.id for one in examples if scores(benchmark, one, [f"The answer is {one.answer}."]) != [1]]
    # The benchmark's own patterns: "The answer is A…" in a text is read as the option A.
    assert len(wrong) <= 15
    assert examples[0].images[0].open().width > 20
