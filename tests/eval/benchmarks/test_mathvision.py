"""MathVision as a benchmark: its rows, its prompt, and its published totals."""

import json
import time
from collections import Counter

import pytest

from data import DataError
from data.example import MARKER, split_at_images
from eval.benchmark import DataSource, Response
from eval.benchmarks.mathvision import LETTER, VALUE, benchmark
from eval.predictions import read_predictions
from eval.scoring.score import score_responses
from eval.scoring.summary import summarise
from rewards import Status
from tests.paths import DATASETS

MATHVISION = DATASETS / "mathvision"
PREDICTIONS = MATHVISION / "predictions" / "qwen-vl-max-cot.jsonl"
ROW = {
    "id": "7",
    "question": "How many?\n<image1>",
    "options": [],
    "answer": "3",
    "solution": None,
    "level": 2,
    "subject": "counting",
    "image": "images/7.jpg",
}


def loaded(tmp_path, **changes):
    (tmp_path / "test.jsonl").write_text(json.dumps({**ROW, **changes}) + "\n")
    return benchmark.load(DataSource(str(tmp_path)))[0]


@pytest.fixture(scope="module")
def published():
    if not PREDICTIONS.exists():
        pytest.skip("the real data is not beside the project (../shared/datasets)")
    return benchmark.load(DataSource(str(MATHVISION))), read_predictions(PREDICTIONS, benchmark)


def test_a_row_in_the_published_layout_is_read(tmp_path):
    example = loaded(tmp_path)
    assert (example.id, example.answer, example.choices) == ("7", "3", ())
    assert example.images[0].origin.endswith("images/7.jpg")


def test_a_row_of_something_else_is_refused(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"id": "1", "question": "q", "answer": "a"}\n')
    with pytest.raises(DataError, match="no options and no level and no subject"):
        benchmark.load(DataSource(str(tmp_path)))


def test_groups_are_level_subject_and_both(tmp_path):
    assert benchmark.groups(loaded(tmp_path)) == {
        "level": ["2"],
        "subject": ["counting"],
        "subject and level": ["counting, level 2"],
    }


def test_the_prompt_lists_the_options_and_asks_for_the_letter(tmp_path):
    asked = benchmark.prompt(loaded(tmp_path, options=["x", "y"]))
    assert asked == f"How many?\n<image>\n(A) x\n(B) y\n\n{LETTER}"


def test_the_prompt_of_a_free_question_asks_for_the_answer(tmp_path):
    assert benchmark.prompt(loaded(tmp_path)) == f"How many?\n<image>\n\n{VALUE}"


def test_of_several_markers_of_one_image_the_names_remain(tmp_path):
    example = loaded(tmp_path, question="Put <image1> on <image2>.", options=["<image3>", "none"])
    assert benchmark.prompt(example) == f"<image>\nPut image 1 on image 2.\n(A) image 3\n(B) none\n\n{LETTER}"


def test_an_image_named_twice_stays_at_its_first_place(tmp_path):
    asked = benchmark.prompt(loaded(tmp_path, question="From <image1> to <image1>."))
    assert asked == f"From <image> to image 1.\n\n{VALUE}"


def test_a_question_without_a_marker_begins_with_its_image(tmp_path):
    assert benchmark.prompt(loaded(tmp_path, question="How many?")).startswith("<image>\nHow many?")


def test_official_reads_the_response_and_not_the_extraction(tmp_path):
    verdict = benchmark.official(loaded(tmp_path), Response("7", r"\boxed{3}", extraction="4"))
    assert verdict.status is Status.CORRECT


@pytest.mark.shared
def test_every_prompt_of_testmini_has_its_image_once(published):
    examples = benchmark.load(DataSource(str(MATHVISION), split="testmini"))
    asked = [benchmark.prompt(example) for example in examples]
    assert [len(MARKER.findall(text)) for text in asked] == [1] * 304
    assert all(sum(isinstance(one, int) for one in split_at_images(text, 1)) == 1 for text in asked)


def test_the_published_prompt_lists_options_unless_they_are_letters(tmp_path):
    head = 'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a'
    asked = benchmark.published(loaded(tmp_path, options=["x", "y"]))
    assert asked.startswith(head)
    assert asked.endswith("How many?\n<image>\n(A) x\n(B) y")
    letters = benchmark.published(loaded(tmp_path, options=list("ABCDE")))
    assert letters.endswith("How many?\n<image>")


def published_form(summary):
    """The totals of the groups under the names and in the form of ``*_result.json``."""
    groups = summary["groups"]
    totals = {"-all": summary["overall"]}
    totals |= {f"-level{level}": own for level, own in groups["level"].items()} | groups["subject"]
    for name, own in groups["subject and level"].items():
        subject, _, level = name.rpartition(", level ")
        totals |= {f"{subject}_level{level}": own, f"-level{level}_{subject}": own}
    return {
        name: f"{own['correct']}/{own['total']}={round(own['correct'] / own['total'] * 100, 2)}%"
        for name, own in totals.items()
    }


@pytest.mark.shared
def test_all_published_totals_are_reproduced_from_the_raw_responses(published):
    examples, responses = published
    rows = score_responses(benchmark, examples, responses, ["official"], workers=1)
    wanted = json.loads(PREDICTIONS.with_name("qwen-vl-max-cot_result.json").read_text())
    assert len(wanted) == 178
    assert published_form(summarise(benchmark, rows)) == wanted


@pytest.mark.shared
def test_every_row_is_right_or_wrong_as_published(published):
    examples, responses = published
    records = [json.loads(line) for line in PREDICTIONS.read_text().splitlines()]
    wanted = {record["id"]: float(record["correct"]) for record in records}
    rows = score_responses(benchmark, examples, responses, ["official"], workers=1)
    assert [row.response.id for row in rows if row.verdict.score != wanted[row.response.id]] == []


@pytest.mark.shared
def test_the_verifier_scores_all_in_ten_seconds_on_one_core(published):
    examples, responses = published
    start = time.perf_counter()
    rows = score_responses(benchmark, examples, responses, ["verifier"], workers=1)
    assert time.perf_counter() - start < 10
    assert Counter(row.verdict.status for row in rows)[Status.TIMEOUT] == 0
