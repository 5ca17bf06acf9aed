"""Declared benchmarks of science, each on invented rows in its published layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks import find_benchmark
from tests.fakes.declared import loaded, png, scores, written


def emma(subject: str, number: int, answer: str, options: list[str] | None) -> dict[str, object]:
    image = {"bytes": png(), "path": None}
    return {
        "pid": f"{subject.lower()}_{number}",
        "question": "What do <image_1> and <image_2> show?",
        "options": options,
        "answer": answer,
        **{f"image_{i}": image if i <= 2 else None for i in range(1, 6)},
        "solution": "",
        "subject": subject,
        "task": "made up",
        "category": "2D Transformation; Color" if subject == "Coding" else "2D Transformation",
        "source": "Newly annotated",
        "type": "Multiple Choice" if options else "Open-ended",
        "context": "In a dark room." if number == 2 else None,
    }


@pytest.fixture
def subjects(tmp_path: Path) -> Path:
    for subject in ("Math", "Physics", "Chemistry", "Coding"):
        rows = [emma(subject, 1, "B", ["30 cm", "70 cm"]), emma(subject, 2, "10", None)]
        written(tmp_path, f"{subject}/test-00000-of-00001.parquet", rows)
    return tmp_path


@pytest.mark.parametrize("name", ["emma", "emma_mini"])
def test_emma_reads_its_four_subjects(subjects: Path, name: str) -> None:
    benchmark = find_benchmark(name)
    examples = benchmark.load(DataSource(str(subjects)))
    assert [one.meta["subject"] for one in examples[::2]] == ["Math", "Physics", "Chemistry", "Coding"]
    assert len(examples[0].images) == 2
    assert benchmark.groups(examples[6])["category"] == ["2D Transformation", "Color"]


def test_emma_names_a_subject_that_a_copy_lacks(subjects: Path) -> None:
    (subjects / "Physics" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="has no rows of 'Physics', the split 'test'; EMMA"):
        find_benchmark("emma").load(DataSource(str(subjects)))


def test_emmas_subject_can_be_given_as_a_file(subjects: Path) -> None:
    file = subjects / "Physics" / "test-00000-of-00001.parquet"
    examples = find_benchmark("emma").load(DataSource(str(file)))
    assert [one.id for one in examples] == ["physics_1", "physics_2"]


def test_emma_prompts_with_context_and_options_where_there_are_any(subjects: Path) -> None:
    benchmark = find_benchmark("emma")
    choice, free = benchmark.load(DataSource(str(subjects)))[:2]
    assert benchmark.prompt(choice).startswith(
        "What do <image1> and <image2> show?\n\nA: 30 cm\nB: 70 cm\n\nAnswer with the option's letter"
    )
    assert benchmark.prompt(free).startswith("In a dark room.\n\nWhat do <image1>")
    assert r'put the answer in one "\boxed{}". Please solve' in benchmark.prompt(free)


def test_emma_accepts_the_letter_and_the_options_text(subjects: Path) -> None:
    benchmark = find_benchmark("emma")
    choice, free = benchmark.load(DataSource(str(subjects)))[:2]
    assert scores(benchmark, choice, [r"\boxed{B}", "B.", r"\boxed{70 cm}", r"\boxed{A}", "hm"]) == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert scores(benchmark, free, [r"\boxed{10.004}", r"\boxed{\text{ten}}", r"\boxed{11}"]) == [1, 1, 0]


def test_emma_lets_a_judge_compare(subjects: Path) -> None:
    benchmark = find_benchmark("emma")
    free = benchmark.load(DataSource(str(subjects)))[1]
    assert benchmark.judge is not None
    response = Response(free.id, "It must be about a dozen less two.")
    assert benchmark.judge(free, response, lambda prompt: "Correct").score == 1
    assert benchmark.judge(free, response, lambda prompt: "Incorrect").score == 0


def phyx(answer: str, question: str) -> dict[str, object]:
    return {
        "index": 7,
        "question": question,
        "image": {"bytes": png(), "path": None},
        "answer": answer,
        "category": "Mechanics",
    }


PHYX_CHOICE = "How fast is it? Options: A: 1 m/s, B: 2 m/s, C: 3 m/s, D: 4 m/s Please answer with the letter."


def test_phyx_reads_the_letter_after_the_answer(tmp_path: Path) -> None:
    rows = [phyx("C", PHYX_CHOICE)]
    benchmark, (example,) = loaded("phyx", tmp_path, "PhyX_mini_MC.parquet", rows)
    assert benchmark.prompt(example) == f"<image>\n{PHYX_CHOICE}"
    texts = ["The correct option is C.", "C", "C: 3 m/s", "**C**", "The answer is B", "I cannot tell"]
    assert scores(benchmark, example, texts) == [1, 1, 1, 1, 0, 0]
    assert benchmark.groups(example) == {"category": ["Mechanics"]}


def test_phyx_open_accepts_the_gold_text_and_leaves_the_rest_to_a_judge(tmp_path: Path) -> None:
    rows = [phyx("36.00 kg", "How heavy is it?")]
    benchmark, (example,) = loaded("phyx_open", tmp_path, "PhyX_mini_OE.parquet", rows)
    texts = [r"\boxed{36.00 kg}", "So it is 36.00 kg.", r"\boxed{36 kg}", "no idea"]
    assert scores(benchmark, example, texts) == [1, 1, 0, 0]
    assert benchmark.judge is not None
    response = Response("7", r"\boxed{36.1 \text{ kg}}")
    assert benchmark.judge(example, response, lambda prompt: "1").score == 1
    assert benchmark.judge(example, response, lambda prompt: "Judgement: 0").score == 0
    assert benchmark.judge(example, response, lambda prompt: "10").score is None
