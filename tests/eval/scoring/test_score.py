"""Scoring by protocol: missing responses, failing scorers, samples."""

from __future__ import annotations

import pytest

from data import DataError, Example
from eval.benchmark import Ask, Failure, Response
from eval.scoring.score import score_responses, unmatched_ids
from mm_cpgd.errors import UserError
from rewards import Status, Verdict
from rewards.workers.pool import PoolError
from tests.fakes.scoring import example, scored, sums

TWO = [example("a"), example("b", "5")]


def test_every_protocol_gives_its_verdict_and_the_first_is_the_rows_own() -> None:
    (row,) = scored({"a": r"\boxed{4.0}"}, [example("a")], protocols=["verifier", "official"])
    assert {name: verdict.score for name, verdict in row.verdicts.items()} == {
        "verifier": 1.0,
        "official": 0.0,
    }
    assert row.verdict is row.verdicts["verifier"]


def test_rows_are_in_the_order_of_the_questions_and_samples() -> None:
    responses = [Response("b", "5", 1), Response("a", "4", 0), Response("b", "5", 0), Response("a", "4", 1)]
    rows = score_responses(sums(), TWO, responses, ["official"], workers=4)
    assert [(row.example.id, row.response.sample) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_a_question_without_an_answer_is_wrong_and_missing() -> None:
    answered, missing = scored({"a": "4"}, TWO)
    assert (answered.verdict.score, answered.missing) == (1.0, False)
    assert (missing.verdict.score, missing.verdict.status, missing.missing) == (0.0, Status.NO_ANSWER, True)


def test_an_empty_answer_is_an_answer() -> None:
    (row,) = scored({"a": ""}, [example("a")])
    assert not row.missing
    assert row.verdict.status is Status.NO_ANSWER


def test_a_missing_sample_is_missing_alone() -> None:
    rows = scored({"a": ["4", "4"], "b": ["5"]}, TWO)
    assert [row.missing for row in rows] == [False, False, False, True]


def test_a_question_without_a_gold_answer_has_no_score_answered_or_not() -> None:
    rows = scored({"a": "4"}, [example("a", " "), example("b", "")])
    assert [row.verdict.score for row in rows] == [None, None]
    assert {row.verdict.status for row in rows} == {Status.UNPARSABLE_GOLD}


def test_a_missing_response_to_a_question_that_no_response_can_score_has_no_score() -> None:
    def judged_only(one: Example, response: Response) -> Verdict:
        return Verdict(None, Status.NOT_JUDGED, None, "only an LLM scores this")

    def judge(one: Example, response: Response, ask: Ask) -> Verdict:
        raise AssertionError("a missing response needs no judge")

    benchmark = sums(official=judged_only, judge=judge)
    rows = scored({"a": "4"}, TWO, benchmark=sums(official=judged_only))
    assert [row.verdict.score for row in rows] == [None, None]
    assert rows[1].missing
    (row,) = score_responses(
        benchmark, [TWO[0]], [Response("a", "", failure=Failure("refused", Status.REFUSED))],
        ["official", "verifier", "judge"], ask=lambda prompt: "1", declined_wrong=True,
    )  # fmt: skip
    assert [verdict.score for verdict in row.verdicts.values()] == [None, 0.0, 0.0]


def test_a_missing_response_is_wrong_where_the_rule_fails_on_an_empty_one() -> None:
    def broken(one: Example, response: Response) -> Verdict:
        return Verdict(float(response.text[0] == "4"), Status.CORRECT)

    assert [row.verdict.score for row in scored({"a": "4"}, TWO, benchmark=sums(official=broken))] == [1, 0]


def test_a_scorer_that_fails_on_a_row_gives_no_score_and_a_reason() -> None:
    def broken(one: Example, response: Response) -> Verdict:
        return Verdict(1 / (len(response.text) - 1), Status.CORRECT)

    rows = scored({"a": "4", "b": "55"}, TWO, benchmark=sums(official=broken))
    assert [(row.verdict.score, row.verdict.status) for row in rows] == [(None, "error"), (1.0, "correct")]
    assert rows[0].verdict.reason == "ZeroDivisionError: division by zero"


def test_a_rule_may_return_a_plain_number() -> None:
    (row,) = scored({"a": "4"}, [example("a")], benchmark=sums(official=lambda one, response: 0.5))
    assert (row.verdict.score, row.verdict.status) == (0.5, Status.PARTIAL)


def test_worker_processes_that_do_not_start_stop_the_scoring() -> None:
    def without_workers(one: Example, response: Response) -> Verdict:
        raise PoolError("no memory")

    with pytest.raises(PoolError, match="no memory"):
        scored({"a": "4"}, [example("a")], benchmark=sums(official=without_workers))


def test_a_judge_that_does_not_reply_has_not_judged() -> None:
    from eval.scoring.judge import JudgeError

    def judge(one: Example, response: Response, ask: Ask) -> Verdict:
        return Verdict(float(ask(response.text) == "yes"), Status.CORRECT)

    def ask(prompt: str) -> str:
        if prompt == "5":
            raise JudgeError("no reply")
        return "yes"

    rows = scored({"a": "4", "b": "5"}, TWO, benchmark=sums(judge=judge), protocols=["judge"], ask=ask)
    assert [(row.verdict.score, row.verdict.status) for row in rows] == [
        (1.0, "correct"),
        (None, "not_judged"),
    ]


def test_progress_is_reported_after_every_row() -> None:
    reported: list[tuple[int, int]] = []
    scored({"a": "4", "b": "5"}, TWO, progress=lambda done, total: reported.append((done, total)))
    assert reported == [(1, 2), (2, 2)]


def test_responses_to_other_questions_are_named_once_and_ignored() -> None:
    responses = [Response("a", "4"), Response("x", "1", 0), Response("x", "2", 1)]
    assert unmatched_ids(TWO, responses) == ["x"]
    assert {row.example.id for row in score_responses(sums(), TWO, responses, ["official"])} == {"a", "b"}


@pytest.mark.parametrize(
    ("examples", "responses", "says"),
    [
        ([], [Response("a", "4")], "data has no rows"),
        ([example("a"), example("a")], [Response("a", "4")], "1 question ids occur twice, first 'a'"),
        (TWO, [Response("a", "4"), Response("a", "5")], "occur twice, first id 'a' sample 0"),
        (TWO, [Response("x", "4")], r"none of the 1 responses \(first id 'x'\).*first id 'a'"),
        (TWO, [], "none of the 0 responses"),
    ],
)
def test_responses_and_questions_that_do_not_match_are_refused(
    examples: list[Example], responses: list[Response], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        score_responses(sums(), examples, responses, ["official"])


@pytest.mark.parametrize(
    ("protocols", "says"),
    [
        (["oficial"], "no protocol 'oficial': did you mean 'official'"),
        (["judge:extracion"], "no protocol 'judge:extracion'"),
        ([], "no protocol is named: known are judge, judge:general, judge:whole, official, verifier"),
        (["judge"], "give --judge-url and --judge-model"),
    ],
)
def test_an_unknown_protocol_or_a_missing_judge_is_refused(protocols: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        scored({"a": "4"}, TWO, protocols=protocols)
