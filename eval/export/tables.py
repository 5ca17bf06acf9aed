"""A matrix of results as CSV, Markdown and LaTeX; numbers in percent."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence

from eval.export.matrix import Cell, Column, Matrix

SIGNIFICANT = 0.05
# An ampersand that Markdown would read as the start of a character's name.
_ENTITY = re.compile(r"&(?=#?\w+;)")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$", "–": "--",
}  # fmt: skip


def csv_table(matrix: Matrix) -> str:
    """Return one row per model; of each column accuracy, interval, n, and the difference to the baseline."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ["", " low", " high", " n"]
    if matrix.baseline is not None:
        parts += [" difference", " difference low", " difference high", " p", " p (Holm)"]
    writer.writerow(["model", *(f"{column.title}{part}" for column in matrix.columns for part in parts)])
    for name in matrix.rows:
        values = [
            value
            for column in matrix.columns
            for value in _csv_cell(matrix.cells.get((name, column)), len(parts))
        ]
        writer.writerow([name, *values])
    return stream.getvalue()


def _csv_cell(cell: Cell | None, width: int) -> list[str]:
    if cell is None or cell.accuracy is None:
        return [""] * width
    values = [_percent(cell.accuracy, 2), *(_percent(end, 2) for end in cell.interval), str(cell.total)]
    if cell.difference is not None:
        ends = (cell.difference.difference, *cell.difference.interval)
        values += [*(_percent(end, 2) for end in ends), f"{cell.difference.p:.3g}", f"{cell.adjusted:.3g}"]
    return values + [""] * (width - len(values))


def markdown_table(matrix: Matrix) -> str:
    """Return a pipe table with what it means below it."""
    head = ["model", *(column.title for column in matrix.columns)]
    rows = [
        [name, *(_text(matrix.cells.get((name, column))) for column in matrix.columns)]
        for name in matrix.rows
    ]
    lines = [_pipes(head), "|---|" + "---:|" * len(matrix.columns), *map(_pipes, rows), ""]
    lines += [f"- {markdown_escaped(line)}" for line in (*explanations(matrix), *matrix.notes)]
    return "\n".join(lines) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_escaped, cells))} |"


def latex_table(matrix: Matrix) -> str:
    """Return a table for the package booktabs; the explanations are its caption, the notes comments."""
    rows = [
        [latex_escaped(name), *(_latex_cell(matrix.cells.get((name, column))) for column in matrix.columns)]
        for name in matrix.rows
    ]
    head = ["model", *(latex_escaped(column.title) for column in matrix.columns)]
    caption = " ".join(f"{latex_escaped(line)}." for line in explanations(matrix))
    lines = [
        r"% \usepackage{booktabs}", r"\begin{table}", r"\centering",
        f"\\begin{{tabular}}{{l{'r' * len(matrix.columns)}}}", r"\toprule", _ampersands(head), r"\midrule",
        *map(_ampersands, rows), r"\bottomrule", r"\end{tabular}", f"\\caption{{{caption}}}", r"\end{table}",
        *(f"% {' '.join(note.split())}" for note in matrix.notes),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _ampersands(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: Cell | None) -> str:
    return latex_escaped(_text(cell))


def _text(cell: Cell | None) -> str:
    """Return ``63.7 (60.7 – 66.6), +1.2*``; a dash without a number."""
    if cell is None or cell.accuracy is None:
        return "–"
    low, high = cell.interval
    text = f"{_percent(cell.accuracy)} ({_percent(low)} – {_percent(high)})"
    if cell.difference is None:
        return text
    sign = f"{100 * cell.difference.difference:+.1f}".replace("-", "−")
    return f"{text}, {sign}{'*' * (cell.adjusted is not None and cell.adjusted < SIGNIFICANT)}"


def explanations(matrix: Matrix) -> Iterator[str]:
    """Yield what the numbers of a table mean, one line each."""
    yield "Accuracy in percent with its 95 % interval; the protocol that scored it in parentheses"
    for column in matrix.columns:
        yield f"{column.title}: n = {_totals(matrix, column)}"
    if matrix.baseline is not None:
        count = sum(cell.difference is not None for cell in matrix.cells.values())
        how = f" ({'; '.join(matrix.methods)})" if matrix.methods else ""
        yield f"After the comma the difference to {matrix.baseline} in points, on the questions of both{how}"
        yield f"*: p < {SIGNIFICANT}, adjusted for {count} comparisons by Holm's method"


def _totals(matrix: Matrix, column: Column) -> str:
    totals = {
        name: matrix.cells[name, column].total for name in matrix.rows if (name, column) in matrix.cells
    }
    if len(set(totals.values())) == 1:
        return f"{next(iter(totals.values())):,}"
    return ", ".join(f"{total:,} of {name}" for name, total in totals.items())


def latex_escaped(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def markdown_escaped(text: str) -> str:
    """Return a text as Markdown prints it, also within a pipe table."""
    plain = " ".join(text.split())
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]<>|~$" else letter for letter in plain)
    return _ENTITY.sub(r"\\&", escaped)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


FORMATS: dict[str, Callable[[Matrix], str]] = {
    "csv": csv_table, "markdown": markdown_table, "latex": latex_table,
}  # fmt: skip
