"""Declared benchmarks of mathematics, each on invented rows in its published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks import find_benchmark
from tests.fakes.declared import loaded, pairs, png, scores, written

VARIANTS = [f"sample_variant{number}" for number in range(1, 11)]


def dynamath(seed: int, answer: str, kind: str) -> dict[str, object]:
    return {
        "id": str(seed),
        "question": "What is the period?",
        "image": f"images/{seed}.png",
        "decoded_image": {"bytes": png(), "path": None},
        "ground_truth": answer,
        "answer_type": kind,
        "subject": "analytic geometry",
        "knowledge_level": "high school",
    }


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    for variant in VARIANTS:
        rows = [
            dynamath(1, "2.0944", "float"),
            dynamath(2, "B", "multiple choice"),
            dynamath(3, "May", "text"),
        ]
        written(tmp_path, f"data/{variant}-00000-of-00001.parquet", rows)
    return tmp_path


def test_dynamath_reads_ten_variants_with_ids_of_their_own(variants: Path) -> None:
    examples = find_benchmark("dynamath").load(DataSource(str(variants)))
    assert len(examples) == 30
    assert examples[3].id == "sample_variant2/1"
    assert examples[3].images[0].open().size == (8, 8)
    assert examples[3].meta["id"] == "1"


def test_dynamath_counts_the_average_and_the_worst_case(variants: Path) -> None:
    benchmark = find_benchmark("dynamath")
    examples = benchmark.load(DataSource(str(variants)))
    texts = ["2.094", "B", "May"] * 9 + ["2.5", "B", "May"]
    scored = pairs(benchmark, examples, [f'{{"short answer": "{text}"}}' for text in texts])
    assert sum(verdict.score or 0 for _, verdict in scored) == 29
    assert benchmark.metrics is not None
    assert benchmark.metrics(scored) == {"worst_case": 2 / 3, "worst_case_groups": 3}


def test_the_verifier_reads_dynamaths_short_answer(variants: Path) -> None:
    benchmark = find_benchmark("dynamath")
    number = benchmark.load(DataSource(str(variants)))[0]
    text = '{"solution": "It is 3.", "short answer": "%s"}'
    found = [benchmark.verifier(number, Response("1", text % answer)).score for answer in ("2.0944", "2.1")]
    assert found == [1, 0]


def test_dynamaths_worst_case_needs_all_ten_variants(variants: Path) -> None:
    benchmark = find_benchmark("dynamath")
    examples = benchmark.load(DataSource(str(variants), limit=6))
    assert benchmark.metrics is not None
    scored = pairs(benchmark, examples, ['{"short answer": "B"}'] * 6)
    assert benchmark.metrics(scored) == {"worst_case": None, "worst_case_groups": 0}


def test_dynamath_reads_one_variant_by_its_split(variants: Path) -> None:
    examples = find_benchmark("dynamath").load(DataSource(str(variants), split="sample_variant7"))
    assert [one.id for one in examples] == ["sample_variant7/1", "sample_variant7/2", "sample_variant7/3"]


def test_dynamath_names_a_variant_that_a_copy_lacks(variants: Path) -> None:
    (variants / "data" / "sample_variant4-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="sample_variant4"):
        find_benchmark("dynamath").load(DataSource(str(variants)))


def test_dynamath_asks_for_the_type_of_the_answer(variants: Path) -> None:
    benchmark = find_benchmark("dynamath")
    number, letter, text = benchmark.load(DataSource(str(variants)))[:3]
    assert "three-digit floating-point number and provide it" in benchmark.prompt(number)
    assert "such as 'A', 'B', 'C', or 'D'" in benchmark.prompt(letter)
    assert '"short answer": "[Concise Answer]"' in benchmark.prompt(text)


GEOMETRY3K = [
    {
        "images": ["1.png"],
        "problem": "<image>Find x.",
        "answer": r"4 \sqrt { 3 }",
        "id": 2401,
        "choices": ["4", r"4 \sqrt { 3 }", "6", "8"],
        "ground_truth": "B",
    }
]


def test_geometry3k_takes_the_value(tmp_path: Path) -> None:
    benchmark, (example,) = loaded("geometry3k", tmp_path, "test.json", GEOMETRY3K)
    assert benchmark.prompt(example).startswith("<image>Find x.\n\nReason step by step")
    assert example.choices == ()
    assert scores(benchmark, example, [r"\boxed{4\sqrt{3}}", r"\boxed{6.928}", "B"]) == [1, 0, 0]


def test_geometry3k_choice_takes_the_letter(tmp_path: Path) -> None:
    benchmark, (example,) = loaded("geometry3k_choice", tmp_path, "test.json", GEOMETRY3K)
    assert "A. 4\nB. 4 \\sqrt { 3 }" in benchmark.prompt(example)
    assert scores(benchmark, example, ["The answer is B.", r"\boxed{4\sqrt{3}}", "C"]) == [1, 1, 0]


def test_geoqa_is_decided_by_the_verifier(tmp_path: Path) -> None:
    rows = [
        {"image_path": "./Geo170K/images/test/0.png", "question": "How large is ACD?", "ground_truth": "27°"}
    ]
    benchmark, (example,) = loaded("geoqa", tmp_path, "geoqa_test_prompts.jsonl", rows)
    assert scores(benchmark, example, ["<answer>27</answer>", "27°", "<answer>72°</answer>"]) == [1, 1, 0]


def test_geoqa_cannot_be_read_from_the_hub() -> None:
    with pytest.raises(
        DataError, match="cannot be read from the hub; give a copy as data: src/eval/prompts of"
    ):
        find_benchmark("geoqa").load(DataSource())


MM_MATH = [
    {
        "question": "How long is AB?",
        "file_name": "1.png",
        "solution": r"By Pythagoras, AB is \boxed{2\sqrt{2}}.",
        "year": "eight",
        "difficult": "medium",
        "knowledge": ["triangles"],
    },
    {
        "question": "How large is the shaded area?",
        "file_name": "2.png",
        "solution": r"It is \boxed{3.14}.",
        "year": "nine",
        "difficult": "hard",
        "knowledge": ["circles"],
    },
    {"question": "Prove it.", "file_name": "3.png", "solution": "QED.", "year": "nine", "difficult": "hard"},
]


def test_mm_math_has_its_gold_answer_in_the_box_of_the_solution(tmp_path: Path) -> None:
    benchmark, examples = loaded("mm_math", tmp_path, "MM_Math.jsonl", MM_MATH)
    assert [one.answer for one in examples] == [r"2\sqrt{2}", "3.14", ""]
    assert scores(benchmark, examples[0], [r"\boxed{\sqrt{8}}", r"\boxed{2.8}", "unclear"]) == [1, 0, 0]
    assert scores(benchmark, examples[1], [r"\boxed{3.15}", r"\boxed{3.17}"]) == [1, 0]
    assert benchmark.groups(examples[1]) == {"difficulty": ["hard"], "year": ["nine"]}


MATHVERSE = [
    {
        "sample_index": str(number),
        "problem_index": "1",
        "problem_version": version,
        "question": "" if version == "Vision Only" else "Find the angle.",
        "question_for_eval": "Find the angle.",
        "image": f"{number}.png",
        "answer": "40",
        "question_type": "free-form",
        "metadata": {"subject": "Plane Geometry", "subfield": "Angle"},
    }
    for number, version in enumerate(
        ["Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only"] * 2
    )
]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("mathverse_text_dominant", "Text Dominant"),
        ("mathverse_text_lite", "Text Lite"),
        ("mathverse_vision_intensive", "Vision Intensive"),
        ("mathverse_vision_dominant", "Vision Dominant"),
        ("mathverse_vision_only", "Vision Only"),
    ],
)
def test_each_version_of_mathverse_is_a_benchmark(tmp_path: Path, name: str, version: str) -> None:
    written(tmp_path, "testmini.json", MATHVERSE)
    benchmark, whole = find_benchmark(name), find_benchmark("mathverse")
    examples = benchmark.load(DataSource(str(tmp_path)))
    assert [one.meta["problem_version"] for one in examples] == [version] * 2
    assert len(benchmark.load(DataSource(str(tmp_path), limit=1))) == 1
    assert (benchmark.judge, benchmark.official) == (whole.judge, whole.official)
    assert benchmark.official(examples[0], Response(examples[0].id, r"\boxed{40}")).score == 1


def test_mathverses_text_only_is_a_split_of_its_own(tmp_path: Path) -> None:
    row = {**MATHVERSE[0], "problem_version": "Text Only", "image": ""}
    written(tmp_path, "testmini.json", MATHVERSE)
    (tmp_path / "testmini_text_only.json").write_text(json.dumps([row]))
    (example,) = find_benchmark("mathverse_text_only").load(DataSource(str(tmp_path)))
    assert example.id == "text-only-0"
