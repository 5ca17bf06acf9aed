"""Summaries: accuracies, groups, flags, metrics over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from data import Example
from eval.benchmark import Failure, Response, ScoredRow
from eval.scoring.score import score_responses
from eval.scoring.statistics import wilson_interval
from eval.scoring.summary import summarise
from rewards import Status, Verdict
from tests.fakes.scoring import example, scored, sums

FOUR = [example("a", level=1), example("b", level=10), example("c", level=2), example("d", level=2)]


def test_overall_and_groups_count_right_responses_with_their_interval() -> None:
    summary = summarise(sums(), scored({"a": "4", "b": "4", "c": "5", "d": "4"}, FOUR))
    assert summary["overall"] == {
        "correct": 3,
        "total": 4,
        "accuracy": 0.75,
        "interval": list(wilson_interval(3, 4)),
    }
    levels = summary["groups"]["level"]
    assert {name: (own["correct"], own["total"]) for name, own in levels.items()} == {
        "1": (1, 1),
        "2": (1, 2),
        "10": (1, 1),
    }
    assert list(levels) == ["1", "2", "10"]


def test_a_row_may_be_in_several_groups_of_a_dimension_and_counts_once_in_each() -> None:
    benchmark = sums(groups=lambda one: {"skills": ["x", "y", "x"] if one.id == "a" else ["y"]})
    skills = summarise(benchmark, scored({"a": "4", "b": "5"}, FOUR[:2]))["groups"]["skills"]
    assert {name: (own["correct"], own["total"]) for name, own in skills.items()} == {
        "x": (1, 1),
        "y": (1, 2),
    }


def test_each_protocol_has_its_own_numbers_and_the_first_is_the_results() -> None:
    rows = scored({"a": r"\boxed{4.0}", "b": "4"}, [FOUR[0], FOUR[1]], protocols=["verifier", "official"])
    summary = summarise(sums(), rows)
    assert summary["protocol"] == "verifier"
    assert list(summary["protocols"]) == ["verifier", "official"]
    assert summary["overall"] == summary["protocols"]["verifier"]["overall"]
    assert [one["overall"]["correct"] for one in summary["protocols"].values()] == [2, 1]


def test_partial_scores_add_up() -> None:
    halves = sums(official=lambda one, response: Verdict(0.5, Status.PARTIAL))
    rows = scored({"a": "x", "b": "y", "c": "z"}, FOUR[:3], benchmark=halves)
    assert summarise(halves, rows)["overall"]["correct"] == 1.5


def test_rows_without_a_score_leave_the_accuracy_and_are_flagged_with_the_reason() -> None:
    rows = scored({"a": "4", "b": "5", "c": "4", "d": "4"}, [*FOUR[:2], example("c", ""), example("d", "")])
    summary = summarise(sums(), rows)
    assert (summary["overall"]["correct"], summary["overall"]["total"]) == (1, 2)
    assert summary["unscored"] == {
        "count": 2,
        "share": 0.5,
        "reasons": {"unparsable_gold: the question has no gold answer": 2},
    }
    (flag,) = summary["flags"]
    assert "gave no score to 2 of 4 responses" in flag
    assert "2 times unparsable_gold: the question has no gold answer" in flag


def unscored(*reasons: str) -> list[ScoredRow]:
    """Make rows that were not judged for these reasons."""
    return [
        ScoredRow(
            example(str(i)), Response(str(i), "4"), {"judge": Verdict(None, Status.NOT_JUDGED, None, why)}
        )
        for i, why in enumerate(reasons)
    ]


def test_every_reason_for_no_score_is_counted_with_details_of_its_first_case() -> None:
    cut, silent = "the judge's reply was cut off: allow it more tokens", "the judge did not reply: status 500"
    twice = "the judge gave no clear verdict, asked twice: {}"
    rows = unscored(cut, twice.format("'Hm'"), silent, twice.format("'Well'"), twice.format("''"))
    summary = summarise(sums(), rows)
    assert summary["unscored"]["reasons"] == {
        "not_judged: the judge gave no clear verdict, asked twice": 3,
        "not_judged: the judge's reply was cut off": 1,
        "not_judged: the judge did not reply": 1,
    }
    (flag,) = summary["flags"]
    assert flag == (
        "judge gave no score to 5 of 5 responses, which the accuracy excludes: "
        "3 times not_judged: the judge gave no clear verdict, asked twice (first: 'Hm'); "
        "1 times not_judged: the judge's reply was cut off (first: allow it more tokens); "
        "1 times not_judged: the judge did not reply (first: status 500)"
    )


def unanswered(**options: Any) -> list[ScoredRow]:
    """Score one right response, a server's failure, a refusal and an empty reply."""
    responses = [
        Response("a", "4"),
        Response("b", "", failure=Failure("no reply from the server: status 500")),
        Response("c", "I cannot", failure=Failure("the model refused: I cannot", Status.REFUSED, "I cannot")),
        Response("d", "", failure=Failure("the reply is empty", Status.EMPTY)),
    ]
    return score_responses(sums(), FOUR, responses, ["official", "verifier"], **options)


def test_questions_without_a_response_leave_every_accuracy_and_are_flagged_once() -> None:
    summary = summarise(sums(), unanswered())
    assert [one["overall"]["total"] for one in summary["protocols"].values()] == [1, 1]
    assert summary["unanswered"] == {
        "count": 3,
        "share": 0.75,
        "statuses": {"not_answered": 1, "refused": 1, "empty": 1},
    }
    assert (summary["missing"]["count"], summary["unparsed"]["count"]) == (0, 0)
    (flag,) = summary["flags"]
    assert flag == (
        "3 of 4 responses are not there and have no score: "
        "1 times not_answered: no reply from the server (first: status 500); "
        "1 times refused: the model refused (first: I cannot); 1 times empty: the reply is empty; "
        "the same mm-cpgd eval command asks for these again"
    )


def test_declined_questions_count_as_wrong_on_request_and_failures_never() -> None:
    summary = summarise(sums(), unanswered(declined_wrong=True))
    assert (summary["overall"]["correct"], summary["overall"]["total"]) == (1, 3)
    assert summary["unanswered"]["statuses"] == {"not_answered": 1}
    assert any("2 of 4 replies are no response and count as wrong" in flag for flag in summary["flags"])


def test_a_sample_without_a_response_leaves_pass_at_k_and_the_majority_to_complete_questions() -> None:
    failure = Failure("no reply from the server")
    responses = [
        Response("a", "4", 0), Response("a", "", 1, failure=failure), Response("b", "5", 0),
        Response("b", "4", 1),
    ]  # fmt: skip
    samples = summarise(sums(), score_responses(sums(), FOUR[:2], responses, ["official"]))["samples"]
    assert samples == {
        "k": 2,
        "questions": 2,
        "complete": 1,
        "accuracy": pytest.approx(0.75),
        "pass_at_k": {"1": pytest.approx(0.75), "2": 1.0},
        "maj_at_k": 0.5,
        "intervals": samples["intervals"],
    }


def test_missing_responses_are_counted_flagged_and_not_called_unparsed() -> None:
    summary = summarise(sums(), scored({"a": "4"}, FOUR))
    assert (summary["overall"]["correct"], summary["overall"]["total"]) == (1, 4)
    assert summary["missing"] == {"count": 3, "share": 0.75}
    assert summary["unparsed"] == {"count": 0, "share": 0.0}
    assert summary["flags"] == ["3 of 4 responses are missing and count as wrong"]


def test_responses_without_an_extracted_answer_are_unparsed_and_flagged_if_many() -> None:
    summary = summarise(sums(), scored({"a": "", "b": "4", "c": "4", "d": "4"}, FOUR))
    assert summary["unparsed"] == {"count": 1, "share": 0.25}
    assert summary["flags"] == ["official could extract no answer from 25.0% of the responses"]


def truncated(cut: int, whole: int, unknown: int = 0) -> dict[str, Any]:
    finished = [False] * cut + [True] * whole + [None] * unknown
    examples = [example(str(i)) for i in range(len(finished))]
    responses = [Response(str(i), "4", finished=one) for i, one in enumerate(finished)]
    return summarise(sums(), score_responses(sums(), examples, responses, ["official"]))


@pytest.mark.parametrize(
    ("cut", "flags"),
    [
        (0, []),
        (4, []),
        (5, ["5.0% of the responses were cut off by the length limit"]),
        (50, ["mostly truncated: 50.0% of the responses were cut off by the length limit"]),
    ],
)
def test_a_truncated_result_is_flagged(cut: int, flags: list[str]) -> None:
    assert truncated(cut, 100 - cut)["flags"] == flags


def test_truncation_is_a_share_of_the_known_ones_and_otherwise_unknown() -> None:
    assert truncated(1, 3, 4)["truncated"] == {"count": 1, "share": 0.25}
    assert truncated(0, 0, 4)["truncated"] is None


def test_one_response_to_each_question_has_no_numbers_of_samples() -> None:
    assert summarise(sums(), scored({"a": "4"}, FOUR[:1]))["samples"] is None


def test_samples_have_mean_accuracy_pass_at_k_and_majority() -> None:
    answers = {"a": ["4", "5", "4"], "b": ["5", "5", "4"]}
    samples = summarise(sums(), scored(answers, FOUR[:2]))["samples"]
    # a: 2 of 3 right, majority right; b: 1 of 3, majority wrong. Draws of two with a right one: 3 and 2.
    assert samples == {
        "k": 3,
        "questions": 2,
        "complete": 2,
        "accuracy": pytest.approx(0.5),
        "pass_at_k": {"1": pytest.approx(0.5), "2": pytest.approx((1 + 2 / 3) / 2), "3": 1.0},
        "maj_at_k": 0.5,
        "intervals": samples["intervals"],
    }


def test_the_metrics_of_several_samples_have_intervals_over_questions() -> None:
    answers = {"a": ["4", "5"], "b": ["5", "5"], "c": ["4", "4"], "d": ["4", "4"]}
    found = summarise(sums(), scored(answers, FOUR))["samples"]["intervals"]
    # pass@2 and maj@2 are one value a question: Wilson's interval of 3 of 4, and of ½ + 0 + 1 + 1 of 4.
    assert found["pass_at_k"]["2"] == pytest.approx(wilson_interval(3, 4))
    assert found["maj_at_k"] == pytest.approx(wilson_interval(2.5, 4))
    low, high = found["accuracy"]
    assert found["pass_at_k"]["1"] == found["accuracy"]
    # Eight independent samples would give a narrower one, four a wider one.
    assert wilson_interval(2.5, 4)[0] < low < wilson_interval(5, 8)[0]
    assert wilson_interval(5, 8)[1] < high < wilson_interval(2.5, 4)[1]


def test_forced_answers_are_counted_and_flagged() -> None:
    responses = [Response("a", "4", finished=False, forced=True), Response("b", "4", finished=False)]
    summary = summarise(sums(), score_responses(sums(), FOUR[:2], responses, ["official"]))
    assert summary["forced"] == {"count": 1, "share": 0.5}
    assert any(
        flag.startswith("1 of 2 responses were cut off, and their answer was") for flag in summary["flags"]
    )
    assert "forced" not in summarise(sums(), scored({"a": "4"}, FOUR[:1]))


def test_the_majority_counts_a_letter_and_its_options_text_as_the_same() -> None:
    question = example("a", "B", choices=("3 cm", "4 cm"))
    texts = [r"\boxed{B}", r"\boxed{4 cm}", r"\boxed{A}"]
    rows = scored({"a": texts}, [question], protocols=["verifier"])
    assert summarise(sums(), rows)["samples"]["maj_at_k"] == 1


def test_identical_samples_of_a_question_do_not_narrow_the_interval() -> None:
    once = summarise(sums(), scored({"a": "4", "b": "5"}, FOUR[:2]))["overall"]
    often = summarise(sums(), scored({"a": ["4"] * 9, "b": ["5"] * 9}, FOUR[:2]))["overall"]
    assert (often["total"], often["accuracy"]) == (18, 0.5)
    assert often["interval"] == pytest.approx(once["interval"])


def count_right(rows: Sequence[tuple[Example, Verdict]]) -> Mapping[str, Any]:
    right = sum(verdict.score or 0 for _, verdict in rows)
    return {"right": right, "none": None, "by": {"asked": len(rows)}}


def test_a_benchmarks_own_numbers_exist_for_each_protocol() -> None:
    rows = scored({"a": r"\boxed{4.0}", "b": "4"}, FOUR[:2], protocols=["official", "verifier"])
    summary = summarise(sums(metrics=count_right), rows)
    assert summary["metrics"] == {"right": 1, "none": None, "by": {"asked": 2}}
    assert summary["protocols"]["verifier"]["metrics"]["right"] == 2


def test_a_benchmarks_own_numbers_are_averaged_over_samples() -> None:
    rows = scored({"a": ["4", "5"], "b": ["4", "4"]}, FOUR[:2])
    metrics = summarise(sums(metrics=count_right), rows)["metrics"]
    assert metrics == {"right": 1.5, "none": None, "by": {"asked": 2}}
