"""``metrics.jsonl``: one line of numbers per iteration, append-only, readable after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.tracking.files import json_line, write_lines, writing


class MetricsLog:
    """Log that appends metrics to a JSONL file.

    The file is opened for every line, so nothing has to be closed and nothing stays in a buffer. A line that
    an earlier process left incomplete is cut off at the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _cut_incomplete_line(path)

    def write(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Append ``{"iteration": n, **metrics}``.

        Args:
            iteration: counted from 1; 0 is the state before training.
            metrics: numbers, NumPy scalars or 0-d tensors; NaN and infinities are written as null.

        Raises ``UserError`` if the file cannot be written.
        """
        line = json_line({"iteration": iteration, **metrics})
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def truncate_after(self, iteration: int) -> None:
        """Remove the lines of later iterations, which a resumed run writes again."""
        rows = read_metrics(self.path)
        kept = [row for row in rows if row["iteration"] <= iteration]
        if len(kept) < len(rows):
            write_lines(self.path, (json_line(row) for row in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``metrics.jsonl`` in the order written; none if the file is absent.

    An incomplete last line is ignored. Raises ``UserError`` with the line number for any other broken line.
    """
    if not path.is_file():
        return []
    content = path.read_text(encoding="utf-8", errors="replace")
    complete = content[: content.rfind("\n") + 1]
    return [_row(path, number, line) for number, line in enumerate(complete.split("\n"), 1) if line.strip()]


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: broken JSON ({error}); remove the line") from None
    if not isinstance(row, dict) or type(row.get("iteration")) is not int:
        raise UserError(
            f"{path}, line {number}: not an object with a whole number 'iteration'; remove the line"
        )
    return row


def _cut_incomplete_line(path: Path) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with writing(path), path.open("r+b") as file:
            file.truncate(end)
