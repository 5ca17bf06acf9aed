"""Overview of the included benchmarks: rows, official scoring, reported number and sources of each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from eval import benchmarks
from eval.benchmarks import find_benchmark, python_names
from eval.declared import declared, declared_names, find_declared, is_declared
from eval.declared.kinds import KINDS
from eval.declared.schema import Declaration, Subset

OFFICIAL = {
    "rule": "the benchmark's own rule, from the response to the verdict",
    "comparison": "the benchmark's comparison, of the answer that this project extracts",
    "verifier": "the verifier's verdict, as the benchmark has no rule",
    "judge": "no score: only an LLM scores, --protocol judge",
    "own file": "see eval/benchmarks/NAME.py and docs/evaluation.md",
}


@dataclass(frozen=True)
class Overview:
    """What a user should know of a benchmark before citing its number.

    Attributes:
        name: as on the command line.
        title: as its authors write it, or what it is.
        rows: published number of rows, None if it is not declared.
        kind: kind of the answer; "Python" for a benchmark with a file of its own.
        official: what the official protocol is, a key of ``OFFICIAL``.
        reported: the number that papers give.
        judge: whether it has a judge of its own.
        source: paper and repository.
        checked: what columns and rule were run on.
        read_from: where they were looked up.
        notes: caveats.
    """

    name: str
    title: str
    rows: int | None
    kind: str
    official: str
    reported: str
    judge: bool
    source: str
    checked: str
    read_from: tuple[str, ...]
    notes: str


def overview(name: str) -> Overview:
    """Return the overview of an included benchmark, or of a user's YAML file. Raises ``UserError``."""
    if is_declared(name):
        name, one = find_declared(name)
    else:
        name = find_benchmark(name).name
        if name in python_names():
            return _of_python(name)
        one = declared()[name]
    return _of_subset(name, one) if isinstance(one, Subset) else _of_declaration(name, one)


def _of_python(name: str) -> Overview:
    benchmark = find_benchmark(name)
    text = importlib.import_module(f"{benchmarks.__name__}.{name}").__doc__
    title = (text or "").split("\n")[0].rstrip(".")
    return Overview(
        name, title, None, "Python", "own file", "", benchmark.judge is not None, benchmark.source, "", (), ""
    )


def _of_subset(name: str, one: Subset) -> Overview:
    whole = overview(one.subset_of)
    return Overview(
        name, one.title, one.rows, f"rows of {one.subset_of}", whole.official, "accuracy", whole.judge,
        whole.source, one.checked, tuple(one.read_from), one.notes,
    )  # fmt: skip


def _of_declaration(name: str, one: Declaration) -> Overview:
    return Overview(
        name, one.title, one.data.rows, one.answer.kind, KINDS[one.answer.kind].means, one.reported,
        one.judge is not None, one.source, one.checked, tuple(one.read_from), " ".join(one.notes.split()),
    )  # fmt: skip


def markdown() -> str:
    """Return the table and the notes of docs/benchmarks.md, of the declared benchmarks."""
    lines = [
        "| name | benchmark | rows | kind of answer | official | reported | judge |",
        "|---|---|---|---|---|---|---|",
    ]
    every = [overview(name) for name in declared_names()]
    lines += [
        f"| `{one.name}` | {one.title} | {_count(one.rows)} | {one.kind} | {one.official} | {one.reported} | "
        f"{'own' if one.judge else 'general'} |"
        for one in every
    ]
    return "\n".join([*lines, "", *(line for one in every for line in _notes(one))]).strip() + "\n"


def _count(rows: int | None) -> str:
    return f"{rows:,}" if rows else "–"


def _notes(one: Overview) -> list[str]:
    if not one.read_from:
        return []
    lines = [
        f"**`{one.name}`** {one.source}. Read from: {'; '.join(one.read_from)}. "
        f"Checked: {one.checked.strip()}."
    ]
    return [*lines, *([one.notes] if one.notes else []), ""]
