"""Summaries: accuracies, groups, flags, metrics over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from data import Example
from eval.benchmark import Response
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
    assert summary["unscored"] == {"count": 2, "share": 0.5}
    (flag,) = summary["flags"]
    assert "gave no score to 2 of 4 responses" in flag
    assert "2 times unparsable_gold: the question has no gold answer" in flag


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
        "accuracy": pytest.approx(0.5),
        "pass_at_k": {"1": pytest.approx(0.5), "2": pytest.approx((1 + 2 / 3) / 2), "3": 1.0},
        "maj_at_k": 0.5,
    }


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
