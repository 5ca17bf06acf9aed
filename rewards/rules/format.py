"""Rules "format" (required tags) and "json_schema" (JSON that a schema allows)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import MinLen

from rewards.example import ExampleLike
from rewards.math.bounds import Unreadable
from rewards.registry import rule
from rewards.rules.common import (
    MAX_TEXT,
    Checked,
    Section,
    no_answer,
    partial_credit,
    section,
    strip_code_fence,
    tag_name,
)
from rewards.verdict import Status, Verdict

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

Tags = Annotated[tuple[Annotated[str, Checked(tag_name)], ...], MinLen(1)]


def _fault(text: str, tags: tuple[str, ...]) -> str | None:
    """Return the first fault of the format, or None. Each check relies on the ones before it."""
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    for mark in marks:
        if text.count(mark) != 1:
            return f"{mark} occurs {text.count(mark)} times, not once"
    places = [text.index(mark) for mark in marks]
    if places != sorted(places):
        return "the tags are not in the order " + " ".join(marks)
    ends = [place + len(mark) for place, mark in zip(places, marks, strict=True)]
    # Texts between the marks: alternately to be blank and to be filled.
    spaces = [text[start:end].strip() for start, end in zip([0, *ends], [*places, len(text)], strict=True)]
    if any(spaces[::2]):
        return "there is text outside of the tags"
    empty = [tag for tag, content in zip(tags, spaces[1::2], strict=True) if not content]
    return f"<{empty[0]}> is empty" if empty else None


@rule("format")
def format_tags(completion: str, example: ExampleLike, tags: Tags = ("think", "answer")) -> Verdict:
    """1 if the completion is <think>…</think><answer>…</answer>, both filled and nothing outside, else 0.

    Args:
        completion: the model's text.
        example: not used.
        tags: the tags in their required order.
    """
    fault = _fault(completion, tags)
    if fault:
        return Verdict(0.0, Status.WRONG, None, fault)
    return Verdict(1.0, Status.CORRECT, None, "all tags in order")


MAX_DEPTH = 32
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _check_depth(text: str) -> None:
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise Unreadable(f"nested {deepest} deep, at most {MAX_DEPTH} are read")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Unreadable(f"the key {twice[:40]!r} occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise Unreadable(f"{name} is not JSON")


def _number(text: str) -> int | float:
    """Return a number within the range of floating point, in which validation computes."""
    value = float(text)
    if not math.isfinite(value):
        raise Unreadable(f"the number {text[:20]}… is too large")
    return value if re.search(r"[.eE]", text) else int(text)


def read_json(text: str) -> Any:
    """Return the value of a JSON text, in a code fence or bare.

    Raises ``Unreadable`` if it is not JSON, longer than 20,000 characters, nested deeper than 32, or names a
    key of an object twice.
    """
    if len(text) > MAX_TEXT:
        raise Unreadable(f"{len(text):,} characters, at most {MAX_TEXT:,} are read")
    text = strip_code_fence(text)
    _check_depth(text)
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_number, parse_int=_number
        )
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}"[:120]) from error


@lru_cache(maxsize=32)
def _validator(schema: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # With an empty registry nothing that a $ref names is ever fetched.
    return Draft202012Validator(json.loads(schema), registry=Registry())


def usable_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``schema``. Raises ``ValueError`` if it is not a JSON schema (draft 2020-12)."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
        json.dumps(schema)
    except (SchemaError, TypeError) as error:
        raise ValueError(f"it is not a JSON schema: {str(error).splitlines()[0][:200]}") from error
    return schema


@rule("json_schema")
def json_schema(
    completion: str,
    example: ExampleLike,
    schema: Annotated[dict[str, Any], Checked(usable_schema)],
    read: Section = "text",
) -> Verdict:
    """1 if the answer is JSON that the schema allows, else 0.

    Args:
        completion: the model's text: JSON in a code fence or bare.
        example: not used.
        schema: a JSON schema, draft 2020-12.
        read: the section of the completion to read.
    """
    text = section(completion, read)
    if text is None:
        return no_answer(read)
    try:
        value = read_json(text.strip())
    except Unreadable as error:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, text[:MAX_TEXT], f"the answer cannot be read: {error}")
    fault = next(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value), None)
    if fault is None:
        return partial_credit(1.0, text, "the schema allows it")
    message = " ".join(fault.message.split())
    return partial_credit(0.0, text, f"{fault.json_path}: {message[:160]}")
