"""Comparison of two results: difference, groups, changed responses, warnings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from data import Example
from eval.benchmark import Ask, Response
from eval.comparison import BY_QUESTION, ONE_EACH, compare
from eval.results import EvalResult, read_result, write_result
from eval.scoring.statistics import mcnemar_p, paired_interval
from mm_cpgd.errors import UserError
from rewards import Status, Verdict
from tests.fakes.scoring import example, scored, sums

QUESTIONS = [example(name, level=1 + (name in "de")) for name in "abcde"]


@pytest.fixture
def result(tmp_path: Path) -> Any:
    """Make a result of responses by id; options as for ``scored``, and the settings to store."""

    def make(
        answers: Mapping[str, str | Sequence[str]], settings: Mapping[str, Any] | None = None, **more: Any
    ) -> EvalResult:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        questions = more.pop("questions", QUESTIONS)
        benchmark = more.get("benchmark", sums())
        write_result(folder, benchmark, scored(answers, questions, **more), settings or {})
        return read_result(folder)

    return make


A = dict(zip("abcde", "44555", strict=True))
B = dict(zip("abcde", "45445", strict=True))


def test_the_difference_is_of_the_pairs_with_newcombes_interval_and_mcnemars_p(result: Any) -> None:
    found = compare(result(A), result(B))
    assert (found.method, found.protocol) == (ONE_EACH, "official")
    overall = found.overall
    assert (overall.total, overall.gained, overall.lost) == (5, 2, 1)
    assert (overall.a, overall.b, overall.difference) == pytest.approx((0.4, 0.6, 0.2))
    assert overall.interval == paired_interval(1, 2, 1, 1)
    assert overall.p == mcnemar_p(2, 1)
    assert found.warnings == []


def test_the_other_way_around_the_difference_has_the_other_sign(result: Any) -> None:
    a, b = result(A), result(B)
    there, back = compare(a, b).overall, compare(b, a).overall
    assert back.difference == pytest.approx(-there.difference)
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert (back.gained, back.lost, back.p) == (there.lost, there.gained, there.p)


def test_groups_have_their_own_differences(result: Any) -> None:
    levels = compare(result(A), result(B)).groups["level"]
    assert {name: (one.total, one.gained, one.lost) for name, one in levels.items()} == {
        "1": (3, 1, 1),
        "2": (2, 1, 0),
    }


def test_changed_responses_are_named_with_both_answers(result: Any) -> None:
    changed = compare(result(A), result(B)).changed
    assert [(one.id, one.gained, one.extracted_a, one.extracted_b, one.answer) for one in changed] == [
        ("b", False, "4", "5", "4"),
        ("c", True, "5", "4", "4"),
        ("d", True, "5", "4", "4"),
    ]


def test_questions_are_matched_by_id_and_the_others_left_out_with_a_warning(result: Any) -> None:
    a = result({"a": "4", "b": "4"}, questions=QUESTIONS[:2])
    b = result({"c": "4", "b": "5"}, questions=QUESTIONS[2:0:-1])
    found = compare(a, b)
    assert (found.overall.total, found.overall.lost) == (1, 1)
    assert found.warnings == ["1 responses in A only are excluded", "1 responses in B only are excluded"]


def test_pairs_without_a_score_on_one_side_are_left_out(result: Any) -> None:
    silent = sums(official=lambda one, response: Verdict(None, Status.NOT_JUDGED) if one.id == "a" else 1.0)
    found = compare(result(A), result(B, benchmark=silent))
    assert found.overall.total == 4
    assert "1 responses without a score in one result are excluded" in found.warnings


def test_several_responses_to_a_question_are_compared_by_question(result: Any) -> None:
    alike_a = result({name: [text] * 8 for name, text in A.items()})
    alike_b = result({name: [text] * 8 for name, text in B.items()})
    found = compare(alike_a, alike_b)
    assert found.method == BY_QUESTION
    assert (found.overall.total, found.overall.gained, found.overall.lost) == (40, 16, 8)
    # Differences by question 0, −1, 1, 1, 0: mean 0.2, variance 0.7.
    half = 1.959963984540054 * (0.7 / 5) ** 0.5
    assert found.overall.interval == pytest.approx((0.2 - half, 0.2 + half))


def test_partial_scores_are_compared_by_their_means(result: Any) -> None:
    halves = sums(official=lambda one, response: 0.5 if response.text == "5" else 1.0)
    found = compare(result(A, benchmark=halves), result(B, benchmark=halves))
    assert found.method == BY_QUESTION
    assert found.overall.difference == pytest.approx(0.1)


def test_a_protocol_of_both_can_be_chosen(result: Any) -> None:
    a, b = (result(one, protocols=["official", "verifier"]) for one in (A, B))
    assert compare(a, b, "verifier").protocol == "verifier"


def test_a_protocol_that_one_lacks_is_refused(result: Any) -> None:
    with pytest.raises(UserError, match="protocol 'verifier' is not in both results: known are official"):
        compare(result(A, protocols=["official", "verifier"]), result(B), "verifier")


def test_results_without_a_common_question_are_refused(result: Any) -> None:
    a = result({"a": "4"}, questions=QUESTIONS[:1])
    b = result({"b": "4"}, questions=QUESTIONS[1:2])
    with pytest.raises(UserError, match="first ids 'a' and 'b'"):
        compare(a, b)


def test_missing_responses_of_a_result_are_reported(result: Any) -> None:
    found = compare(result(A), result({"a": "4"}))
    assert "B lacks 4 responses, which count as wrong" in found.warnings


@pytest.mark.parametrize(
    ("a", "b", "warnings"),
    [
        (
            {"model": "x", "predictions": "1", "data": "p"},
            {"model": "y", "predictions": "2", "data": "q"},
            [],
        ),
        (
            {"system_prompt": None, "sampling": {"temperature": 0, "top_p": 1}},
            {"system_prompt": "Think.", "sampling": {"temperature": 1, "top_p": 1}},
            ["settings differ: sampling.temperature, system_prompt"],
        ),
        ({}, {"packages": {"sympy": "1.13"}}, ["settings differ: packages.sympy"]),
    ],
)
def test_settings_that_should_not_differ_are_reported(
    result: Any, a: dict[str, Any], b: dict[str, Any], warnings: list[str]
) -> None:
    found = compare(result(A, a), result(B, b)).warnings
    assert len(found) == len(warnings)
    assert all(line.startswith(start) for line, start in zip(found, warnings, strict=True))


def test_questions_that_differ_are_reported(result: Any) -> None:
    changed = [example("a", "5"), *QUESTIONS[1:3], example("d", choices=("4", "5")), QUESTIONS[4]]
    found = compare(result(A), result(B, questions=changed))
    assert found.warnings == ["2 of 5 questions differ in text, gold answer or choices"]


def test_another_first_protocol_is_reported(result: Any) -> None:
    a, b = result(A), result(B, protocols=["verifier", "official"])
    assert compare(a, b).warnings == ["the protocol differs: A official, B verifier"]


def test_a_comparison_is_json(result: Any) -> None:
    written = json.loads(json.dumps(compare(result(A), result(B)).as_dict()))
    assert written["overall"]["gained"] == 2
    assert [one["id"] for one in written["changed"]] == ["b", "c", "d"]


def test_a_judge_is_never_compared_with_another_one(result: Any) -> None:
    def judge(example: Example, response: Response, ask: Ask) -> Verdict:
        return Verdict(1.0, Status.CORRECT)

    own = sums(judge=judge, judges={"mine": judge})
    a, b = (result(A, benchmark=own, protocols=[protocol], ask=str) for protocol in ("judge", "judge:mine"))
    with pytest.raises(UserError, match="protocol 'judge' is not in both results"):
        compare(a, b)


def test_different_shares_of_extractions_by_rule_are_a_warning(result: Any) -> None:
    def by_rule(example: Example, response: Response) -> bool:
        return response.text == "4"

    own = sums(by_rule=by_rule)
    (warning,) = compare(
        result(A, benchmark=own), result(dict.fromkeys("abcde", "4"), benchmark=own)
    ).warnings
    assert "official extracted A 2 of its answers and B 5 of its answers by a rule" in warning
    assert compare(result(A, benchmark=own), result(A, benchmark=own)).warnings == []
