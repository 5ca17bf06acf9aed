"""Replies of servers: text, limits, and what comes in place of a response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eval.generate.reply import Reply, error_status, filtered, read_reply
from rewards import Status


def reply(content: Any = "four", reason: Any = "stop", usage: Any = None, **message: Any) -> Reply:
    """Return what is read of a chat completion."""
    choice = {"message": {"content": content, **message}, "finish_reason": reason}
    return read_reply(json.dumps({"choices": [choice], "usage": usage}).encode())


def test_a_reply_has_text_and_counts() -> None:
    assert reply(usage={"prompt_tokens": 7, "completion_tokens": 3}) == Reply("four", True, 7, 3)


@pytest.mark.parametrize("reason", ["stop", "eos_token", None, "", {"type": "stop"}, 4])
def test_a_reply_is_finished_whatever_word_a_server_has_for_it(reason: Any) -> None:
    assert reply(reason=reason) == Reply("four", True)


@pytest.mark.parametrize("reason", ["length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length"])
def test_a_reply_at_its_limit_is_cut_off_even_if_it_is_empty(reason: str) -> None:
    assert reply("fo", reason) == Reply("fo", False)
    # All tokens went into reasoning that is not part of the content.
    assert reply(None, reason, reasoning_content="so") == Reply("", False)


def test_content_items_are_joined() -> None:
    parts = [{"type": "text", "text": "fo"}, {"type": "text", "text": None}, "ur", {"type": "image"}]
    assert reply(parts) == Reply("four", True)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"completion_tokens": 7}, 7),
        ({"completion_tokens": 7.0}, 7),
        ({"completion_tokens": 3.5}, None),
        ({"completion_tokens": "7"}, None),
        ({"completion_tokens": float("nan")}, None),
        ({"completion_tokens": float("inf")}, None),
        ({"completion_tokens": -1}, None),
        ({"completion_tokens": True}, None),
        ({"completion_tokens": 10**40}, None),
        ({"completion_tokens": [7]}, None),
        ("7", None),
        ([], None),
    ],
)
def test_odd_usage_makes_the_count_unknown_and_keeps_the_text(usage: Any, tokens: int | None) -> None:
    assert reply(usage=usage) == Reply("four", True, None, tokens)


def test_a_number_of_ten_thousand_digits_keeps_the_text() -> None:
    body = b'{"choices": [{"message": {"content": "four"}}], "usage": {"prompt_tokens": %s}}' % (
        b"9" * 10_000
    )
    assert read_reply(body) == Reply("four", True)


@pytest.mark.parametrize("content", [None, "", " \n", []])
def test_a_reply_without_content_is_empty_and_no_response(content: Any) -> None:
    assert reply(content).declined is Status.EMPTY


def test_a_refusal_keeps_its_words() -> None:
    assert reply(None, refusal="I cannot") == Reply("I cannot", False, declined=Status.REFUSED)
    parts = [{"type": "refusal", "refusal": "I cannot"}]
    assert reply(parts) == Reply("I cannot", False, declined=Status.REFUSED)


def test_a_response_beside_a_refusal_is_a_response() -> None:
    assert reply("four", refusal="") == reply("four", refusal=None) == reply("four", refusal="no")


@pytest.mark.parametrize(
    "reason", ["content_filter", "content_filter: SAFETY", "SAFETY", "recitation", "sensitive"]
)
def test_a_filtered_reply_keeps_what_came_through(reason: str) -> None:
    assert reply("It is f", reason) == Reply("It is f", False, declined=Status.FILTERED)


def test_a_tool_call_is_no_response() -> None:
    calls = [{"function": {"name": "calc", "arguments": "{}"}}]
    found = reply(None, "tool_calls", tool_calls=calls)
    assert (found.declined, json.loads(found.text)) == (Status.TOOL_CALL, calls)
    assert reply("Let me compute.", "tool_calls", tool_calls=calls).text == "Let me compute."
    assert reply(None, "stop", function_call=calls[0]).declined is Status.TOOL_CALL


def test_an_empty_list_of_tool_calls_is_none() -> None:
    assert reply("four", tool_calls=[]) == Reply("four", True)


@pytest.mark.parametrize("reason", ["abort", "error", "insufficient_system_resource"])
def test_a_reply_that_the_server_broke_off_is_none(reason: str) -> None:
    with pytest.raises(ValueError, match="broke it off"):
        reply("fo", reason)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "JSON"),
        (b"<html>busy</html>", "JSON"),
        (b'{"choices": [{"mess', "JSON"),
        (b"\xff\xfe", "not a chat completion"),
        (b"[" * 100_000, "JSON"),
        (b"[1]", "list"),
        (b'data: {"choices": []}', "JSON"),
        (b'{"error": {"message": "overloaded"}}', "choices: .*overloaded"),
        (b'{"choices": []}', "choices"),
        (b'{"choices": {"0": 1}}', "choices"),
        (b'{"choices": [{"finish_reason": "stop"}]}', "message"),
        (b'{"choices": [{"message": "four"}]}', "message"),
        (b'{"choices": [{"message": {"content": 4}}]}', "content"),
    ],
)
def test_a_body_that_is_no_chat_completion_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_reply(body)


@pytest.mark.parametrize(
    ("error", "is_filter"),
    [
        ({"error": {"code": "content_filter"}}, True),
        ({"error": {"code": "content_filter"}, "choices": [{}]}, False),
        ({"error": {"code": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, True),
        ({"error": {"code": "content_policy_violation"}}, True),
        ({"error": {"code": "context_length_exceeded"}}, False),
        ({"error": "content_filter is not supported"}, False),
        ([], False),
    ],
)
def test_a_filtered_prompt_is_known_by_the_code_of_its_error(error: Any, is_filter: bool) -> None:
    assert filtered(json.dumps(error).encode()) is is_filter


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429, "message": "quota"}}, 429),
        ({"error": {"code": "401"}}, 401),
        ({"error": {"status": 503}, "choices": []}, 503),
        ({"error": {"code": "rate_limited"}}, None),
        ({"error": {"code": 7}}, None),
        ({"error": "429"}, None),
        ({"error": {"code": 429}, "choices": [{}]}, None),
        ({"choices": [{}]}, None),
    ],
)
def test_an_error_in_place_of_a_completion_names_its_status(body: dict[str, Any], status: int | None) -> None:
    assert error_status(json.dumps(body).encode()) == status


def test_a_refusal_may_be_the_finish_reason_alone() -> None:
    body = {"choices": [{"message": {"content": ""}, "finish_reason": "refusal"}]}
    assert read_reply(json.dumps(body).encode()).declined is Status.REFUSED
