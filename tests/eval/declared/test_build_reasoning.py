"""Declared benchmarks of visual and logical reasoning, on invented rows in their published layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.benchmark import DataSource, Response
from eval.benchmarks import find_benchmark
from rewards import Status
from tests.fakes.declared import loaded, png, scores, written

LOGICVISTA = {
    f"v1_{number}": {
        "imagename": f"v1_{number}.png",
        "question": "Which of A to E comes next?",
        "answer": answer,
        "reasoning": "made up",
        "skill": ["inductive"],
        "broad_capability": ["diagram", "puzzles"],
        "specific_capability": ["sequence pattern"],
        "imagesource": "made up",
    }
    for number, answer in enumerate(["C", "A, C", ""])
}


def test_logicvista_compares_letters_as_a_set(tmp_path: Path) -> None:
    benchmark, examples = loaded("logicvista", tmp_path, "dataset.json", LOGICVISTA)
    assert scores(benchmark, examples[0], [r"\boxed{C}", r"\boxed{C, D}", "nothing fits"]) == [1, 0, 0]
    assert scores(benchmark, examples[1], [r"\boxed{C, A}", r"\boxed{A}"]) == [1, 0]
    assert benchmark.groups(examples[0]) == {"skill": ["inductive"], "capability": ["diagram", "puzzles"]}


def test_logicvista_has_a_row_without_gold_answer_that_is_unscored(tmp_path: Path) -> None:
    _, examples = loaded("logicvista", tmp_path, "dataset.json", LOGICVISTA)
    assert examples[2].answer == ""


def test_logicvista_finds_its_images_in_the_folder_beside_the_rows(tmp_path: Path) -> None:
    written(tmp_path, "dataset.json", LOGICVISTA)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "v1_0.png").write_bytes(png())
    example = find_benchmark("logicvista").load(DataSource(str(tmp_path)))[0]
    assert example.images[0].open().size == (8, 8)


def test_logicvista_lets_a_judge_extract_the_letters(tmp_path: Path) -> None:
    benchmark, examples = loaded("logicvista", tmp_path, "dataset.json", LOGICVISTA)
    response = Response("v1_1", "The first and the third picture fit.")
    assert benchmark.judge is not None
    assert benchmark.judge(examples[1], response, lambda prompt: "A, C").score == 1
    assert benchmark.judge(examples[1], response, lambda prompt: "Z").score == 0


VISULOGIC = [
    {
        "id": "00000",
        "image_path": "images/00000.png",
        "question": "Which option continues the row?",
        "label": "D",
        "tag": "Quantitative Reasoning",
    }
]


def test_visulogic_reads_box_edges_and_phrases(tmp_path: Path) -> None:
    benchmark, (example,) = loaded("visulogic", tmp_path, "data.jsonl", VISULOGIC)
    texts = [r"Answer: \boxed{D}", r"\boxed{\text{D}}", "It is D.", "The answer is D", r"\boxed{C}", "D or C"]
    assert scores(benchmark, example, texts) == [1, 1, 1, 1, 0, 0]
    assert benchmark.prompt(example).endswith(r"following this format: Answer: \boxed{$LETTER}")
    assert benchmark.groups(example) == {"category": ["Quantitative Reasoning"]}
    assert [image.origin for image in example.images] == ["images/00000.png"]


@pytest.mark.parametrize(
    ("reply", "score"), [("D", 1), ("Letters: D", 1), ("**D**", 1), ("C", 0), ("C, D", 0), ("Z", 0)]
)
def test_visulogics_judge_extracts_the_option(tmp_path: Path, reply: str, score: float) -> None:
    benchmark, (example,) = loaded("visulogic", tmp_path, "data.jsonl", VISULOGIC)
    assert benchmark.judge is not None
    assert (
        benchmark.judge(example, Response("00000", "perhaps the last one"), lambda prompt: reply).score
        == score
    )


R1_ONEVISION = [
    {
        "index": "0",
        "question": "Which is a prime?",
        "choices": "['4', '7', '9']",
        "answer": "B",
        "category": "Math",
        "level": "Junior High School",
        "image": "0.png",
    },
    {
        "index": "1",
        "question": "How many grams?",
        "choices": "",
        "answer": "2.5",
        "category": "Chemistry",
        "level": "College",
        "image": "1.png",
    },
]


def test_r1_onevision_bench_is_decided_by_the_verifier(tmp_path: Path) -> None:
    benchmark, examples = loaded("r1_onevision_bench", tmp_path, "rows.json", R1_ONEVISION)
    assert scores(benchmark, examples[0], [r"\boxed{B}", r"\boxed{7}", r"\boxed{4}"]) == [1, 1, 0]
    assert scores(benchmark, examples[1], [r"\boxed{\frac{5}{2}}", "2.5 g", "no idea"]) == [1, 1, 0]
    assert "A. 4\nB. 7\nC. 9" in benchmark.prompt(examples[0])
    assert "letter" not in benchmark.prompt(examples[1])
    assert benchmark.groups(examples[1]) == {"category": ["Chemistry"], "level": ["College"]}


def test_clevr_counting_reads_the_number_in_the_tag(tmp_path: Path) -> None:
    rows = [{"images": ["0.png"], "problem": "How many items?", "answer": "4"}]
    benchmark, (example,) = loaded("clevr_counting", tmp_path, "test.json", rows)
    texts = ["<think>2+2</think> <answer> 4 </answer>", "<answer>4 items</answer>", "4", "<answer>5</answer>"]
    assert scores(benchmark, example, texts) == [1, 0, 0, 0]
    assert benchmark.official(example, Response("0", "4")).status is Status.NO_ANSWER
    assert benchmark.verifier(example, Response("0", "There are 4.")).score == 1


def test_superclevr_counting_reads_r1_vs_file(tmp_path: Path) -> None:
    rows = [{"image_path": "./images/a.png", "question": "How many different items?", "ground_truth": 10}]
    name = "superclevr_test200_counting_problems.jsonl"
    benchmark, (example,) = loaded("superclevr_counting", tmp_path, name, rows)
    assert benchmark.prompt(example).startswith("<image>\nHow many different items? Think first")
    assert scores(benchmark, example, ["<answer>10</answer>", "<answer>1</answer>"]) == [1, 0]
