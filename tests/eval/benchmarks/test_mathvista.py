"""MathVista as a benchmark: its rows, prompt, judge and output format, and its published totals."""

import json

import pytest

from data import DataError
from data.example import MARKER
from eval.benchmark import DataSource, Response
from eval.benchmarks.mathvista import benchmark
from eval.predictions import read_predictions
from eval.scoring.score import score_responses
from eval.scoring.summary import summarise
from rewards import Status
from tests.paths import DATASETS

MATHVISTA = DATASETS / "mathvista"
PREDICTIONS = MATHVISTA / "predictions" / "bard.json"
ROW = {
    "question": "How heavy is it?",
    "image": "images/4.jpg",
    "choices": None,
    "unit": "g",
    "precision": None,
    "answer": "12",
    "question_type": "free_form",
    "answer_type": "integer",
    "pid": "4",
    "metadata": {
        "language": "english",
        "source": "IQTest",
        "category": "general-vqa",
        "task": "visual question answering",
        "context": "table",
        "grade": "daily life",
        "skills": ["arithmetic reasoning", "logical reasoning"],
    },
}
CHOICE = {
    "choices": ["goat", "horse"],
    "answer": "horse",
    "question_type": "multi_choice",
    "answer_type": "text",
}


def loaded(tmp_path, **changes):
    (tmp_path / "testmini.json").write_text(json.dumps({"4": {**ROW, **changes}}))
    return benchmark.load(DataSource(str(tmp_path)))[0]


def never(prompt):
    raise AssertionError("no judge is to be asked")


def test_the_published_prompt_is_the_rows_own_where_it_has_one(tmp_path):
    query = "Hint: Please answer with an integer.\nQuestion: How heavy is it? (Unit: g)"
    assert benchmark.published(loaded(tmp_path, query=query)) == f"<image>\n{query}"
    assert benchmark.published(loaded(tmp_path)) is None


def test_a_row_in_the_published_layout_is_read(tmp_path):
    example = loaded(tmp_path)
    assert (example.id, example.answer, example.choices) == ("4", "12", ())
    assert example.images[0].origin.endswith("images/4.jpg")


def test_a_row_of_something_else_is_refused(tmp_path):
    (tmp_path / "testmini.json").write_text('[{"pid": "1", "question": "q"}]')
    with pytest.raises(DataError, match="not a row of MathVista"):
        benchmark.load(DataSource(str(tmp_path)))


def test_a_question_counts_for_each_of_its_skills(tmp_path):
    groups = benchmark.groups(loaded(tmp_path))
    assert groups["skills"] == ["arithmetic reasoning", "logical reasoning"]
    assert groups["grade"] == ["daily life"]
    assert groups["answer_type"] == ["integer"]
    assert len(groups) == 9


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, "How heavy is it? (Unit: g)\n\nReason step by step, then put the answer, a whole number, "),
        ({"unit": None}, "How heavy is it?\n\n"),
        (
            CHOICE,
            "How heavy is it? (Unit: g)\n(A) goat\n(B) horse\n\nReason step by step, then put the letter",
        ),
        (
            {"answer_type": "float", "precision": 2.0},
            "a decimal number with two decimal places, as in 1.23, ",
        ),
        ({"answer_type": "list"}, "a list as Python writes it"),
    ],
)
def test_the_prompt_asks_for_the_rows_answer_type(tmp_path, changes, asked):
    text = benchmark.prompt(loaded(tmp_path, **changes))
    assert asked in text
    assert text.startswith("<image>\n")
    assert text.endswith(r"in \boxed{}.")


def test_a_stored_extraction_is_scored_as_it_is(tmp_path):
    example = loaded(tmp_path)
    assert benchmark.official(example, Response("4", r"\boxed{13}", extraction="12.0")).score == 1
    assert benchmark.official(example, Response("4", "12", extraction="")).status is Status.UNPARSABLE_ANSWER


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("12", Status.CORRECT),
        (r"So \boxed{12}.", Status.CORRECT),
        (r"So \boxed{12 g}.", Status.CORRECT),
        (r"So \boxed{many eggs}.", Status.UNPARSABLE_ANSWER),
        ("", Status.NO_ANSWER),
    ],
)
def test_without_a_stored_extraction_the_answer_is_read_by_rule(tmp_path, text, status):
    assert benchmark.official(loaded(tmp_path), Response("4", text)).status is status


def test_the_judge_extracts_and_the_rule_scores(tmp_path):
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return " B\n"

    example = loaded(tmp_path, **CHOICE)
    verdict = benchmark.judge(example, Response("4", "It weighs {more}, so the second."), ask)
    assert verdict.status is Status.CORRECT
    assert "(B) horse" in asked[0]
    assert asked[0].endswith("Response: It weighs {more}, so the second.\nExtracted answer: ")


def test_the_judge_is_not_called_for_responses_that_need_no_llm(tmp_path):
    example = loaded(tmp_path)
    assert benchmark.judge(example, Response("4", "12"), never).score == 1
    assert benchmark.judge(example, Response("4", "About 13.", extraction="13"), never).score == 0
    assert benchmark.judge(example, Response("4", ""), never).status is Status.NO_ANSWER


def test_an_output_brings_its_extraction_and_the_metadata_it_was_made_with(tmp_path):
    older = {**ROW["metadata"], "grade": "not applicable", "skills": ["logical reasoning"]}
    (tmp_path / "out.json").write_text(
        json.dumps({"4": {**ROW, "metadata": older, "response": "It is 12.", "extraction": "12"}})
    )
    responses = read_predictions(tmp_path / "out.json", benchmark)
    assert (responses[0].id, responses[0].text, responses[0].extraction) == ("4", "It is 12.", "12")
    summary = summarise(benchmark, score_responses(benchmark, [loaded(tmp_path)], responses, ["official"]))
    assert list(summary["groups"]["grade"]) == ["not applicable"]
    assert list(summary["groups"]["skills"]) == ["logical reasoning"]


def test_an_output_without_extractions_has_none(tmp_path):
    (tmp_path / "out.json").write_text(json.dumps({"4": {**ROW, "response": "It is 12."}}))
    assert read_predictions(tmp_path / "out.json", benchmark)[0].extraction is None


@pytest.fixture(scope="module")
def published():
    if not PREDICTIONS.exists():
        pytest.skip("the real data is not beside the project (../shared/datasets)")
    examples = benchmark.load(DataSource(str(MATHVISTA)))
    rows = score_responses(
        benchmark, examples, read_predictions(PREDICTIONS, benchmark), ["official", "verifier"], workers=1
    )
    return examples, rows


@pytest.mark.shared
def test_all_published_totals_are_reproduced_from_the_extractions(published):
    summary = summarise(benchmark, published[1])
    wanted = json.loads(PREDICTIONS.with_name("bard_scores.json").read_text())

    def totals(groups):
        return {value: (own["correct"], own["total"]) for value, own in groups.items()}

    assert totals({"all": summary["overall"]}) == totals({"all": wanted.pop("average")})
    assert {name: totals(own) for name, own in summary["groups"].items()} == {
        name: totals(own) for name, own in wanted.items()
    }


@pytest.mark.shared
def test_every_row_is_right_or_wrong_as_published(published):
    wanted = json.loads(PREDICTIONS.read_text())
    rows = published[1]
    assert len(rows) == 1000
    assert [
        row.response.id for row in rows if bool(row.verdict.score) != wanted[row.response.id]["true_false"]
    ] == []


@pytest.mark.shared
def test_the_verifier_agrees_with_the_official_verdicts_on_the_raw_responses(published):
    same = sum(row.verdicts["verifier"].score == row.verdict.score for row in published[1])
    assert same >= 955


@pytest.mark.shared
def test_every_prompt_has_its_image_once(published):
    assert all(len(MARKER.findall(benchmark.prompt(example))) == 1 for example in published[0])


@pytest.mark.parametrize(
    ("text", "extraction", "flagged"),
    [
        ("It is 12 g.", None, True),
        ("It is 12 g.", "12", False),
        ("12", None, False),
        ('The answer is "12".', None, False),
        ("", None, False),
    ],
)
def test_a_number_from_extractions_by_rule_is_flagged(tmp_path, text, extraction, flagged):
    example = loaded(tmp_path)
    rows = score_responses(
        benchmark, [example], [Response("4", text, extraction=extraction)], ["official", "verifier"]
    )
    summary = summarise(benchmark, rows)
    assert summary["protocols"]["official"]["by_rule"]["count"] == flagged
    assert summary["protocols"]["verifier"]["by_rule"] is None
    assert any("by a rule of this project" in line for line in summary["flags"]) is flagged


def test_the_judges_extraction_is_a_protocol_by_its_name(tmp_path):
    example = loaded(tmp_path)
    rows = score_responses(
        benchmark, [example], [Response("4", "A dozen.")], ["judge:extraction"], ask=lambda prompt: "12"
    )
    assert rows[0].verdicts["judge:extraction"].score == 1
