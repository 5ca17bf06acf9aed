"""Replies of OpenAI-compatible servers: text, whether it is complete, and what came in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rewards import Status
from rewards.messages import short

# Finish reasons, in lower case. The limit of tokens cut the text off:
_CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
# The server broke the request off; the same request may succeed.
_BROKEN_OFF = {"abort", "error", "insufficient_system_resource"}
_TOOLS = {"tool_calls", "function_call"}
_FILTER = "content_filter"
# Finish reasons of filters: OpenAI's, Zhipu's, and Gemini's as some servers pass them on.
_FILTERS = (
    _FILTER, "sensitive", "safety", "image_safety", "recitation", "prohibited_content", "blocklist", "spii",
)  # fmt: skip
# Codes of an error that is about the content of the prompt (OpenAI, Azure).
_FILTER_CODES = {_FILTER, "content_policy_violation", "responsibleaipolicyviolation"}
# Larger counts of tokens are errors of the server.
_MOST_TOKENS = 1 << 53


@dataclass(frozen=True)
class Reply:
    """Reply to one request.

    Attributes:
        text: the response; with ``declined`` what came in its place, for instance the words of a refusal.
        finished: False when the limit of tokens cut the text off; it may then be empty (only reasoning).
        prompt_tokens: as counted by the server, None when not reported or no count.
        completion_tokens: likewise.
        declined: None for a response, else why there is none: ``EMPTY``, ``REFUSED``, ``FILTERED`` or
            ``TOOL_CALL``.
    """

    text: str
    finished: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    declined: Status | None = None


def read_reply(body: bytes) -> Reply:
    """Return the first choice of a chat completion.

    Only what a response needs has to be well-formed: an odd ``usage`` makes the counts unknown.

    Raises:
        ValueError: the body is no chat completion, or the server broke the completion off.
    """
    try:
        return _read(_parsed(body))
    except ValueError as error:
        shown = short(body.decode(errors="replace"), 200)
        raise ValueError(f"not a chat completion ({error}): {shown}") from error


def filtered(body: bytes) -> bool:
    """Return whether an error's body says that a filter stopped it; one with a completion does not."""
    try:
        found = _parsed(body)
    except ValueError:
        return False
    if found.get("choices"):
        return False
    error = found.get("error")
    inner = error.get("innererror") if isinstance(error, Mapping) else None
    codes = [one.get("code") for one in (found, error, inner) if isinstance(one, Mapping)]
    return any(str(code).lower() in _FILTER_CODES for code in codes)


def error_status(body: bytes) -> int | None:
    """Return the HTTP status that an error in place of a completion names as its code; None if it is none.

    Proxies send such errors with status 200.
    """
    try:
        found = _parsed(body)
    except ValueError:
        return None
    error = found.get("error")
    if not isinstance(error, Mapping) or found.get("choices"):
        return None
    codes = [str(error.get(name)) for name in ("code", "status", "http_code")]
    return next((int(code) for code in codes if code.isdecimal() and 400 <= int(code[:9]) < 600), None)


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        # A number of thousands of digits is refused by int.
        found = json.loads(body, parse_int=lambda digits: int(digits) if len(digits) < 20 else None)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"a JSON {type(found).__name__} in place of an object")
    return found


def _read(body: Mapping[str, Any]) -> Reply:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("choices: there is none")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise ValueError("choices.0.message: there is none")
    reason = str(choices[0].get("finish_reason") or "").lower()
    if reason in _BROKEN_OFF:
        raise ValueError(f"finish_reason {reason!r}: the server broke it off")
    text, refusal = _texts(message)
    declined = _declined(reason, text, refusal, message)
    shown = text if text.strip() else refusal or _called(message)
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        shown if declined else text,
        reason not in _CUT_OFF and declined is None,
        _count(counts.get("prompt_tokens")),
        _count(counts.get("completion_tokens")),
        declined,
    )


def _texts(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return the content and the refusal of a message; content may be text, null or a list of parts."""
    content, refusal = message.get("content"), message.get("refusal")
    if content is not None and not isinstance(content, (str, list)):
        raise ValueError(f"choices.0.message.content: a {type(content).__name__}")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    refusals = [refusal, *(part.get("refusal") for part in parts if isinstance(part, dict))]
    return _joined(texts), _joined(refusals)


def _joined(texts: list[Any]) -> str:
    return "".join(text for text in texts if isinstance(text, str))


def _declined(reason: str, text: str, refusal: str, message: Mapping[str, Any]) -> Status | None:
    # Some servers name the kind of filter too: "content_filter: SAFETY".
    if reason.startswith(_FILTERS):
        return Status.FILTERED
    if reason in _TOOLS or (not text.strip() and _called(message)):
        return Status.TOOL_CALL
    if text.strip():
        return None
    if refusal.strip() or reason == "refusal":
        return Status.REFUSED
    # Reasoning that used up all tokens is a response that was cut off.
    return None if reason in _CUT_OFF else Status.EMPTY


def _called(message: Mapping[str, Any]) -> str:
    """Return the tool calls of a message as JSON, empty if there are none."""
    calls = message.get("tool_calls") or message.get("function_call")
    return json.dumps(calls, ensure_ascii=False)[:2_000] if calls else ""


def _count(value: Any) -> int | None:
    """Return a count of tokens, None if the value is none: NaN, a fraction, a text, a negative number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None
