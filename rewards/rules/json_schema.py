"""The rule "json_schema": is the answer JSON of the shape that was asked for?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from rewards.math.bounds import Unreadable
from rewards.registry import Answerable, rule
from rewards.rules.common import MAX_TEXT, Checked, Section, graded, no_answer, section, unfenced
from rewards.verdict import Status, Verdict

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

MAX_DEPTH = 32
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _check_depth(text: str) -> None:
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise Unreadable(f"nested {deepest} deep, at most {MAX_DEPTH} are read")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Unreadable(f"the key {twice[:40]!r} stands twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise Unreadable(f"{name} is no JSON")


def _number(text: str) -> int | float:
    """A number that arithmetic in floating point can take, which validation does."""
    value = float(text)
    if not math.isfinite(value):
        raise Unreadable(f"the number {text[:20]}… is too large")
    return value if re.search(r"[.eE]", text) else int(text)


def read_json(text: str) -> Any:
    """Return the value of a JSON text, in a code fence or bare.

    Raises ``Unreadable`` if it is no JSON, longer than 20,000 characters, nested deeper than 32, or names a
    key of an object twice.
    """
    if len(text) > MAX_TEXT:
        raise Unreadable(f"{len(text):,} characters, at most {MAX_TEXT:,} are read")
    text = unfenced(text)
    _check_depth(text)
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_number, parse_int=_number
        )
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {error}"[:120]) from error


@lru_cache(maxsize=32)
def _validator(schema: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # An empty registry of our own: nothing that a $ref names is ever fetched.
    return Draft202012Validator(json.loads(schema), registry=Registry())


def usable_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``schema``. Raises ``ValueError`` if it is no JSON schema (draft 2020-12)."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
        json.dumps(schema)
    except (SchemaError, TypeError) as error:
        raise ValueError(f"it is no JSON schema: {str(error).splitlines()[0][:200]}") from error
    return schema


@rule("json_schema")
def json_schema(
    completion: str,
    example: Answerable,
    schema: Annotated[dict[str, Any], Checked(usable_schema)],
    read: Section = "text",
) -> Verdict:
    """1 if the answer is JSON that the schema allows, else 0.

    Args:
        completion: the model's text: JSON in a code fence or bare.
        example: not looked at.
        schema: a JSON schema, draft 2020-12.
        read: the part of the completion to read.
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
        return graded(1.0, text, "the schema allows it")
    message = " ".join(fault.message.split())
    return graded(0.0, text, f"{fault.json_path}: {message[:160]}")
