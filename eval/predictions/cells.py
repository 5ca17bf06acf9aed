"""Values of a row's columns as JSON, pandas and spreadsheets write them, and texts that mark a failure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data import DataError

_NAN = re.compile(r"\s*nan\s*", re.IGNORECASE)
# An absent value as pandas and Python write it into a table, which has no null.
_ABSENT_CELLS = {"", "None", "NaN", "nan", "NaT", "<NA>", "NA", "N/A", "#N/A", "NULL", "null"}
# Whole integers of a float column: 11.0.
_WHOLE = re.compile(r"\s*([+-]?\d+)\.0*\s*")
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# Texts that stand for a response in the files of VLMEvalKit (vlmeval/api/base.py, vlmeval/inference.py,
# vlmeval/api/stepai.py), of lmms-eval (lmms_eval/models/chat/openai.py, simple/diffusers_wm_base.py) and of
# scripts that store the message of an exception of the package openai.
_FAILED = re.compile(
    r"\s*(?:fail(?:ed)? to (?:obtain|get) (?:an? )?(?:answer|response)\b"
    r"|\[LMMS_EVAL_[A-Z_]+|\[ERROR\]|Error code: \d{3}\b|Connection error\.\s*$|Request timed out\.\s*$"
    r"|HTTPS?ConnectionPool\(|openai\.\w*Error\b)",
    re.IGNORECASE,
)  # fmt: skip


def is_absent(value: Any) -> bool:
    """Return whether a value is null or not a number, also as the text ``nan``."""
    if isinstance(value, str):
        return _NAN.fullmatch(value) is not None
    return value is None or (isinstance(value, float) and math.isnan(value))


def cell(text: Any) -> Any:
    """Return the value of a table's cell, None if it is empty or a mark of pandas for an absent value."""
    return None if isinstance(text, str) and text.strip() in _ABSENT_CELLS else text


def without_nan(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the columns with None for every absent value, also in nested objects and lists."""
    return {str(name): _known(value) for name, value in values.items()}


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_nan(value)
    if isinstance(value, list):
        return [_known(one) for one in value]
    return None if is_absent(value) else value


def is_failure(text: str, marks: Sequence[str] = ()) -> bool:
    """Return whether a text reports that no response was obtained.

    Args:
        text: what is stored as the response.
        marks: further texts with which such a report begins.
    """
    return _FAILED.match(text) is not None or any(text.strip().startswith(mark) for mark in marks)


def as_text(value: Any, column: str, where: str) -> str | None:
    """Return a text, None if it is absent; 12.0 is ``12``.

    Raises:
        DataError: neither a text nor a number.
    """
    if is_absent(value):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, (str, int, float)):
        return str(value)
    raise DataError(f"{where}: {column} is a {type(value).__name__}, it must be text")


def as_whole(value: Any, column: str, where: str) -> int | None:
    """Return an integer of at least 0, None if it is absent; 12.0 and ``12`` are 12. Raises ``DataError``."""
    number = value
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        number = float(value) if re.fullmatch(r"\s*\d{1,15}(?:\.0*)?\s*", value) else None
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
        return number
    raise DataError(f"{where}: {column} is {value!r}, it must be an integer of at least 0")


def as_truth(value: Any, column: str, where: str) -> bool | None:
    """Return a truth value, None if it is absent; 1.0 and ``True`` are true. Raises ``DataError``."""
    if is_absent(value) or value == "":
        return None
    if isinstance(value, str) and value.strip() in _TRUTH:
        return _TRUTH[value.strip()]
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise DataError(f"{where}: {column} is {value!r}, it must be true, false or null")


def canonical_id(value: Any) -> str:
    """Return an id without what spreadsheets and pandas change: 11.0, `` 11`` and ``0011`` are ``11``."""
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    text = whole[1] if whole else text
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text
