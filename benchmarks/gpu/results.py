"""Results, written as they come: one JSON object a line, and the same as Markdown tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.sections import SECTIONS, Row


@dataclass
class Results:
    """Rows and outcomes of the sections; a run that is cut off has lost nothing.

    Attributes:
        folder: receives ``results.jsonl`` and ``results.md``.
        heading: lines that open the Markdown file: command and versions.
    """

    folder: Path
    heading: str
    rows: dict[str, list[Row]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lines.write_text("", encoding="utf-8")

    @property
    def _lines(self) -> Path:
        return self.folder / "results.jsonl"

    def add(self, section: str, row: Row) -> None:
        """Record one row of a section."""
        self.rows.setdefault(section, []).append(row)
        self._write({"section": section, "row": row})

    def end(self, section: str, outcome: str, seconds: float, reason: str = "") -> None:
        """Record how a section ended: done, failed or out of time."""
        because = f": {reason}" if reason else ""
        self.outcomes[section] = f"{outcome} after {seconds:.0f} s{because}"
        self._write({"section": section, "outcome": outcome, "seconds": round(seconds, 1), "reason": reason})

    def _write(self, record: Row) -> None:
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        (self.folder / "results.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """Return all tables."""
        names = [name for name in SECTIONS if name in self.rows or name in self.outcomes]
        parts = [self.heading]
        for name in names:
            outcome = self.outcomes.get(name, "not ended")
            parts += [f"## {SECTIONS[name].title}", table(self.rows.get(name, [])), f"({name}: {outcome})"]
        return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: list[Row]) -> str:
    """Return a Markdown table whose columns are all keys of the rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ""
    lines = [columns, ["---"] * len(columns), *([shown(row.get(key)) for key in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: object) -> str:
    """Return a value as text: numbers with three digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")
