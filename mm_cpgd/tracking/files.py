"""Writing the run's text files so that a kill or a full disk leaves them readable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError


def json_line(value: Mapping[str, Any]) -> str:
    """Return strict JSON without a line end; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """Return ``value`` with null for what is not finite, and Python numbers for NumPy's and torch's."""
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    if not isinstance(value, (bool, int, float, str)) and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a whole file, or leave what was there: written beside its place, then renamed."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        # A completion may hold half a surrogate pair; as \udc80 it is valid JSON.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(temporary, path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one message."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; free space or mend the cause, then resume"
        ) from error
