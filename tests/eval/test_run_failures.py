"""An evaluation by a server that fails: what is not answered is not scored, and asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
from eval.generate.client import Endpoint
from eval.generate.server import ServerGenerator
from tests.fakes.chat_server import HttpReply, Stub, chat_reply, stub_server
from tests.fakes.scoring import OWN_BENCHMARK, write_lines

ROWS = 1_000
NAN = b'{"choices": [{"message": {"content": "It is %d"}}], "usage": {"prompt_tokens": NaN}}'
FILTER = {"error": {"code": "content_filter"}}


def right(number: int) -> HttpReply:
    """Return the reply to a question: three of four are right."""
    return chat_reply(f"It is {number + (number % 4 == 0)}")


def changed(number: int, **values: Any) -> HttpReply:
    reply = right(number)
    for name, value in values.items():
        setattr(reply, name, value)
    return reply


def message(**values: Any) -> HttpReply:
    choice = {"message": {"role": "assistant", "content": None, **values}, "finish_reason": "stop"}
    return HttpReply({"choices": [choice]})


# By name: what the server does with a question, and the status of the question then.
FAILURES: dict[str, tuple[Callable[[int], HttpReply], str]] = {
    "500": (lambda number: HttpReply(b"oops", 500), "not_answered"),
    "429": (lambda number: HttpReply({}, 429, {"Retry-After": "0"}), "not_answered"),
    "503": (lambda number: HttpReply(b"loading", 503), "not_answered"),
    "403": (lambda number: HttpReply(b"blocked", 403), "not_answered"),
    "too long": (lambda number: HttpReply({"error": "too long"}, 400), "not_answered"),
    "filter of the prompt": (lambda number: HttpReply(FILTER, 400), "filtered"),
    "closed": (lambda number: HttpReply(hang_up=True), "not_answered"),
    "ended early": (lambda number: changed(number, cut=40), "not_answered"),
    "ended early without a length": (lambda number: changed(number, cut=40, length=False), "not_answered"),
    "a byte now and then": (lambda number: changed(number, drip=0.1), "not_answered"),
    "headers now and then": (lambda number: changed(number, drip_head=0.1), "not_answered"),
    "garbage": (lambda number: HttpReply(b'{"choices": [{"mess'), "not_answered"),
    "page": (lambda number: HttpReply(b"<html>gateway</html>"), "not_answered"),
    "nothing": (lambda number: HttpReply(b""), "not_answered"),
    "error with 200": (lambda number: HttpReply({"error": {"message": "quota"}}), "not_answered"),
    "broken off": (lambda number: chat_reply("It", "abort"), "not_answered"),
    "null": (lambda number: message(), "empty"),
    "empty": (lambda number: chat_reply(""), "empty"),
    "refusal": (lambda number: message(refusal="I cannot"), "refused"),
    "filter": (lambda number: chat_reply("It", "content_filter"), "filtered"),
    "tool": (lambda number: message(tool_calls=[{"function": {"name": "calc"}}]), "tool_call"),
    "odd usage": (lambda number: HttpReply(NAN % (number + (number % 4 == 0))), ""),
}  # fmt: skip


def kind_of(number: int) -> str | None:
    """Return how the server fails with a question; 5 % of them, every kind at least twice."""
    return list(FAILURES)[number // 20 % len(FAILURES)] if number % 20 == 7 else None


def failing(text: str) -> HttpReply:
    number = int(text.split()[0])
    kind = kind_of(number)
    return FAILURES[kind][0](number) if kind else right(number)


def sound(text: str) -> HttpReply:
    return right(int(text.split()[0]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sums.py").write_text(OWN_BENCHMARK)
    rows = [
        {"id": f"q{number}", "question": f"{number} + 0?", "answer": str(number), "digits": len(str(number))}
        for number in range(ROWS)
    ]
    write_lines(tmp_path / "questions.jsonl", rows)
    return tmp_path


def evaluate(folder: Path, stub: Stub, name: str, **options: Any) -> Any:
    """Evaluate as ``mm-cpgd eval`` does, with time limits and waits of a test."""
    client = Endpoint(stub.url, "m", concurrency=16, timeout=0.5, max_retries=1, first_wait=0.001)
    # The address is part of the model's identity, and each server of a test has its own.
    client.url = "http://server/v1/chat/completions"
    client._session.post = _to(stub, client._session.post)  # type: ignore[method-assign]
    return evaluation.evaluate(
        "m", str(folder / "sums.py"), output=folder / name, data=folder / "questions.jsonl",
        generator=ServerGenerator(client), cache=folder / "cache", **options,
    )  # fmt: skip


def _to(stub: Stub, post: Callable[..., Any]) -> Callable[..., Any]:
    return lambda url, *arguments: post(f"{stub.url}/chat/completions", *arguments)


def test_an_evaluation_with_failures_of_every_kind_is_complete_after_one_more_call(folder: Path) -> None:
    with stub_server(by_prompt=sound) as stub:
        expected = evaluate(folder, stub, "sound", use_cache=False)
    assert expected.summary["unanswered"]["count"] == 0
    assert expected.accuracy == 0.75

    with stub_server(by_prompt=failing) as stub:
        first = evaluate(folder, stub, "failing")
    failed = {f"q{number}": FAILURES[kind][1] for number in range(ROWS) if (kind := kind_of(number))}
    failed = {name: status for name, status in failed.items() if status}
    assert len(failed) == 48
    assert {row["id"]: row["status"] for row in first.rows if row["score"] is None} == failed
    assert all(row["reason"] for row in first.rows)
    assert first.summary["unanswered"]["count"] == 48
    assert first.summary["overall"]["total"] == ROWS - 48
    right_ones = {row["id"] for row in expected.rows if row["score"] == 1} - failed.keys()
    assert first.summary["overall"]["correct"] == len(right_ones)

    with stub_server(by_prompt=sound) as stub:
        second = evaluate(folder, stub, "failing")
    assert len(stub.asked) == 48
    assert [without_tokens(row) for row in second.rows] == [without_tokens(row) for row in expected.rows]
    for name in ("overall", "groups", "metrics", "unparsed", "unscored", "missing", "unanswered", "flags"):
        assert second.summary[name] == expected.summary[name]


def without_tokens(row: dict[str, Any]) -> dict[str, Any]:
    # Unknown where a server reports no number.
    return {**row, "tokens": None}


def test_a_refusal_is_kept_in_its_row(folder: Path) -> None:
    with stub_server(
        by_prompt=lambda text: FAILURES["refusal"][0](0) if text[0] == "1" else sound(text)
    ) as stub:
        result = evaluate(folder, stub, "out", limit=3)
    row = result.rows[1]
    assert (row["response"], row["status"], row["score"], row["missing"]) == (
        "I cannot",
        "refused",
        None,
        False,
    )
    assert row["failure"] == {"status": "refused", "reason": "the model refused: I cannot"}
    assert {one["status"] for one in row["protocols"].values()} == {"refused"}


def test_declined_questions_count_as_wrong_on_request(folder: Path) -> None:
    with stub_server(
        by_prompt=lambda text: FAILURES["refusal"][0](0) if text[0] == "1" else sound(text)
    ) as stub:
        result = evaluate(folder, stub, "out", limit=3, declined="wrong")
    assert [row["score"] for row in result.rows] == [0, 0, 1]
    assert result.summary["unanswered"]["count"] == 0
    assert result.summary["settings"]["declined"] == "wrong"


def test_rows_without_a_response_stay_unscored_when_they_are_scored_again(folder: Path) -> None:
    with stub_server(by_prompt=failing) as stub:
        evaluate(folder, stub, "out", limit=130)
    again = evaluation.score(
        str(folder / "sums.py"), folder / "out" / "sums" / "rows.jsonl", output=folder / "scored",
        data=folder / "questions.jsonl", limit=130,
    )  # fmt: skip
    before = evaluation.read_result(folder / "out" / "sums")
    assert again.summary["unanswered"] == before.summary["unanswered"]
    assert [row["status"] for row in again.rows] == [row["status"] for row in before.rows]
    assert again.summary["overall"] == before.summary["overall"]


def test_a_comparison_leaves_out_unanswered_questions_and_says_so(folder: Path) -> None:
    with stub_server(by_prompt=sound) as stub:
        evaluate(folder, stub, "sound", limit=130, use_cache=False)
    with stub_server(by_prompt=failing) as stub:
        evaluate(folder, stub, "failing", limit=130)
    found = evaluation.compare(folder / "sound" / "sums", folder / "failing" / "sums")
    assert (found.overall.total, found.overall.difference, len(found.changed)) == (123, 0, 0)
    assert "7 responses without a score in one result are excluded" in found.warnings
    assert any(line.startswith("B is not complete: 7 responses are not there") for line in found.warnings)


def test_settings_of_the_request_are_stored_and_part_of_what_is_cached(folder: Path) -> None:
    setting = {"endpoint": "http://server/v1", "request": {"max_completion_tokens": 50, "temperature": None}}
    with stub_server(by_prompt=sound) as stub:
        evaluate(folder, stub, "out", limit=3)
        result = evaluate(folder, stub, "out", limit=3, **setting)
        evaluate(folder, stub, "out", limit=3, **setting)
    assert len(stub.asked) == 6
    assert [sorted(body) for body in stub.asked[3:]] == [["max_completion_tokens", "messages", "model"]] * 3
    settings = json.loads(json.dumps(result.summary["settings"]))
    assert (settings["request"], settings["max_new_tokens"]) == (setting["request"], 50)
