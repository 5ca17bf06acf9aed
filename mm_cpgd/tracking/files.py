"""Text files of a run, written so that a kill or a full disk leaves them readable."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError


def json_line(value: Mapping[str, Any]) -> str:
    """Return strict JSON without a line end; NaN and infinities, which JSON does not have, become null."""
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """Return ``value`` with None for numbers that are not finite, and Python numbers for array scalars."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if not isinstance(value, (bool, int, float, str)) and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file atomically: to a temporary file in the same folder, which then replaces it."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        # A completion may contain a lone surrogate; written as \udc80 it is valid JSON.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{line}\n" for line in lines)
        temporary.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an ``OSError`` into a ``UserError`` that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; free space or fix the cause, then resume"
        ) from error
