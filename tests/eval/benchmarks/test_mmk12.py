"""MMK12 as a benchmark."""

import json

import pytest

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks.mmk12 import benchmark
from rewards import Status

ROWS = [
    {
        "id": "m1",
        "question": "In triangle A, what is x? ( )\nA. 3\nB. 4 cm\nC. 5\nD. 6",
        "answer": "B",
        "subject": "math",
        "image": "images/m1.png",
    },
    {
        "id": "p1",
        "question": "Which lamp is lit? A: the first; B: both; C: none",
        "answer": "C",
        "subject": "physics",
        "image": "images/p1.png",
    },
]


@pytest.fixture
def examples(tmp_path):
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return benchmark.load(DataSource(str(tmp_path)))


def test_the_choices_are_read_out_of_the_question(examples):
    assert [e.choices for e in examples] == [("3", "4 cm", "5", "6"), ("the first", "both", "none")]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("So \\boxed{B}", Status.CORRECT),
        ("The answer is (B).", Status.CORRECT),
        ("\\boxed{\\text{B. 4 cm}}", Status.CORRECT),
        ("\\boxed{C}", Status.WRONG),
        ("\\boxed{BC}", Status.WRONG),
        ("\\boxed{4 cm}", Status.UNPARSABLE_ANSWER),
        ("", Status.NO_ANSWER),
    ],
)
def test_officially_the_letter_decides(examples, text, status):
    assert benchmark.official(examples[0], Response("m1", text)).status is status


def test_the_verifier_takes_the_options_text_too(examples):
    assert benchmark.verifier(examples[0], Response("m1", "\\boxed{4 cm}")).score == 1


def test_rows_are_grouped_by_subject(examples):
    assert [benchmark.groups(e) for e in examples] == [{"subject": ["math"]}, {"subject": ["physics"]}]


def test_the_prompt_shows_the_image_the_options_and_the_box(examples):
    text = benchmark.prompt(examples[0])
    assert text.startswith("<image>\nIn triangle A")
    assert "\\boxed{A}" in text


def test_the_training_split_of_the_hub_is_not_downloaded(monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *args, **kinds: asked.append((args, kinds)) or datasets.Dataset.from_list(ROWS),
    )
    assert len(benchmark.load(DataSource())) == 2
    assert asked[0][0] == ("FanqingM/MMK12",)
    assert asked[0][1]["data_files"] == {"test": "data/test-*"}
    assert asked[0][1]["split"] == "test"


def test_a_row_without_a_subject_is_refused(tmp_path):
    (tmp_path / "test.json").write_text('[{"id": 1, "question": "?", "answer": "A"}]')
    with pytest.raises(DataError, match="has no subject, so it is not a row of MMK12"):
        benchmark.load(DataSource(str(tmp_path)))
