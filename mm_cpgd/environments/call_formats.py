"""Tool calls in the text of a turn: the JSON form of Hermes and Qwen, the XML form of Qwen3-Coder.

Both stand in ``<tool_call>…</tool_call>``, and one that cannot be read is a call with a problem, never an
exception. All searches are linear in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from data.checks import CONTROL_TOKENS
from rewards.messages import short

CallFormat = Literal["json", "xml"]
OPEN, CLOSE = "<tool_call>", "</tool_call>"
# Characters of one call, and calls of one turn that are read.
MAX_CALL = 20_000
MAX_CALLS = 64
_THINK, _END_THINK = "<think>", "</think>"
_FUNCTION, _END_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_PARAMETER = "<parameter=", "</parameter>"


@dataclass(frozen=True)
class ParsedCall:
    """A tool call as written.

    Attributes:
        name: of the tool; empty if it cannot be read.
        arguments: by name; texts in the XML form.
        in_texts: whether the arguments are texts, to be read by the parameters' types.
        problem: why the call cannot be read; empty if it can.
    """

    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    in_texts: bool = False
    problem: str = ""


def find_calls(completion: str) -> list[ParsedCall]:
    """Return the tool calls of a turn in order, those outside of its reasoning."""
    text = without_reasoning(completion)
    calls: list[ParsedCall] = []
    position = 0
    while len(calls) < MAX_CALLS:
        start, stray = text.find(OPEN, position), text.find(CLOSE, position)
        if stray >= 0 and (start < 0 or stray < start):
            calls.append(ParsedCall(problem=f"{CLOSE} without {OPEN} before it"))
            position = stray + len(CLOSE)
            continue
        if start < 0:
            break
        start += len(OPEN)
        end, inner = text.find(CLOSE, start), text.find(OPEN, start)
        if end < 0 or 0 <= inner < end:
            calls.append(ParsedCall(problem=f"{OPEN} is not closed by {CLOSE}"))
            if inner < 0:
                break
            position = inner
            continue
        calls.append(parse_call(text[start:end]))
        position = end + len(CLOSE)
    return calls


def without_reasoning(text: str) -> str:
    """Return the text without ``<think>…</think>``, also where the prompt holds the opening tag."""
    kept, position = [], 0
    start = text.find(_THINK)
    while (end := text.find(_END_THINK, position)) >= 0:
        if 0 <= start < end:
            kept.append(text[position:start])
        else:
            kept = []
        position = end + len(_END_THINK)
        # Not searched again while it lies ahead: the search stays linear in the text.
        if 0 <= start < position:
            start = text.find(_THINK, position)
    return "".join(kept) + text[position:]


def parse_call(body: str) -> ParsedCall:
    """Return the call between the tags, in either form."""
    if len(body) > MAX_CALL:
        return ParsedCall(problem=f"a call of {len(body):,} characters, at most {MAX_CALL:,} are read")
    body = body.strip()
    if not body:
        return ParsedCall(problem="the call is empty")
    return _parse_xml(body) if body.startswith(_FUNCTION) else _parse_json(body)


class _NotANumber(ValueError):
    """NaN or Infinity, which Python's parser takes for numbers."""


def _refuse(constant: str) -> Any:
    raise _NotANumber(f"{constant} is not a number")


def read_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, nested too deeply, or holds NaN, Infinity or a number of too many digits.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_json(body: str) -> ParsedCall:
    try:
        call = read_json(body)
        arguments = call.get("arguments", call.get("parameters", {})) if isinstance(call, dict) else None
        # Some models write the arguments as JSON inside of a text, as OpenAI's interface has them.
        if isinstance(arguments, str):
            arguments = read_json(arguments)
    except json.JSONDecodeError as error:
        return ParsedCall(problem=f"not JSON: {error.msg} at character {error.pos}")
    except ValueError as error:
        return ParsedCall(problem=f"not JSON: {short(str(error), 100)}")
    if not isinstance(call, dict):
        return ParsedCall(problem="one call in each tag: a JSON object with name and arguments")
    name = call.get("name")
    if not isinstance(name, str) or not name:
        return ParsedCall(problem="the call has no name, a text")
    if not isinstance(arguments, dict):
        return ParsedCall(name, problem="the arguments are not a JSON object")
    return ParsedCall(name, arguments)


def _parse_xml(body: str) -> ParsedCall:
    name, end, rest = body[len(_FUNCTION) :].partition(">")
    inner, close, after = rest.partition(_END_FUNCTION)
    name = name.strip().strip("\"'")
    if not end or not name:
        return ParsedCall(problem=f"{_FUNCTION}NAME> has no name")
    if not close:
        return ParsedCall(name, problem=f"{_FUNCTION}{short(name, 40)}> is not closed by {_END_FUNCTION}")
    if after.strip():
        return ParsedCall(name, problem="one call in each tag: text follows the call")
    arguments: dict[str, str] = {}
    while inner := inner.strip():
        if not inner.startswith(_PARAMETER):
            return ParsedCall(name, problem=f"{short(inner, 40)!r} is no {_PARAMETER}NAME>")
        key, end, rest = inner[len(_PARAMETER) :].partition(">")
        value, close, inner = rest.partition(_END_PARAMETER)
        if not end or not close:
            return ParsedCall(name, problem=f"{_PARAMETER}{short(key, 40)}> is not closed")
        arguments[key.strip().strip("\"'")] = value.removeprefix("\n").removesuffix("\n")
    return ParsedCall(name, arguments, in_texts=True)


def format_of(chat_template: str) -> CallFormat | None:
    """Return the form in which a chat template tells the model to call tools; None if it is neither."""
    if "<function=" in chat_template:
        return "xml"
    return "json" if OPEN in chat_template else None


def takes_tools(chat_template: str) -> bool:
    """Return whether a chat template describes the tools of its argument ``tools`` to the model."""
    return re.search(r"\{%-?\s*(?:if|for)\b[^%]*\btools\b", chat_template) is not None


def write_call(name: str, arguments: Mapping[str, Any], call_format: CallFormat = "json") -> str:
    """Return a tool call as a model writes it."""
    if call_format == "json":
        body = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
        return f"{OPEN}\n{body}\n{CLOSE}"
    lines = [f"{_FUNCTION}{name}>"]
    for key, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines += [f"{_PARAMETER}{key}>", text, _END_PARAMETER]
    return "\n".join([OPEN, *lines, _END_FUNCTION, CLOSE])


_HOW = {
    "json": "For each call, return a JSON object with the function's name and arguments inside "
    f'{OPEN}{CLOSE} tags:\n{OPEN}\n{{"name": <function-name>, "arguments": <args-json-object>}}\n{CLOSE}',
    "xml": f"Write each call in this form:\n{OPEN}\n{_FUNCTION}function_name>\n{_PARAMETER}argument_name>\n"
    f"value\n{_END_PARAMETER}\n{_END_FUNCTION}\n{CLOSE}",
}


def instructions(schemas: Sequence[Mapping[str, Any]], call_format: CallFormat) -> str:
    """Return the description of tools for the system message.

    The layout is that of Qwen's chat templates (``# Tools``, schemas inside ``<tools>``, one per line).
    """
    lines = "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the question. "
        "Their signatures are inside <tools></tools> tags:\n"
        f"<tools>\n{lines}\n</tools>\n\n{_HOW[call_format]}"
    )


_MARKER = re.compile(r"<(?=image|/?tool_|\|)")


def neutral(text: str) -> str:
    """Return a text in which no tokenizer or chat template finds control tokens, images or tool calls."""
    text = _MARKER.sub("< ", text).replace("|>", "| >")
    for token in CONTROL_TOKENS:
        text = text.replace(token, token[0] + " " + token[1:])
    # Half of a surrogate pair is no character, and no tokenizer takes it.
    return text.encode("utf-8", "replace").decode("utf-8")
