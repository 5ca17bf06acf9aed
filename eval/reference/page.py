"""The reference page: all published numbers by benchmark and model, with their sources, as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eval.reference.tables import Own, Published, same_benchmark

# Of the benchmarks that are scored here from the start; the others follow by name.
FIRST = ("mathvista", "mathverse", "mathvision", "olympiadbench", "wemath", "mmk12", "k12")
INTRODUCTION = """\
# Published numbers

What papers, model cards and repositories report, in percent, so that you see at once whether a number of
yours is to be expected. `mm-cpgd reference --model Qwen2.5-VL-7B --benchmark mathvista` lists a part of it
with rules and settings, `mm-cpgd reference RESULT` compares a result with it
([evaluation](evaluation.md#compare-with-published-numbers)), `mm-cpgd reference --markdown` prints this page.

- **Bold** numbers were measured by the source's authors; the others they took over or do not say. The letters
  are the [sources](#sources), with the rule, the settings and how each was read.
- Two numbers of one model are by different rules, prompts, pixels or judges, and differ by points for these
  reasons alone. Nothing here says which one is right.
- *here* is what this project measured itself, with its 95 % interval: nothing yet.
"""


def reference_page(published: Sequence[Published], ours: Sequence[Own]) -> str:
    """Return the page of the tables."""
    letters = source_letters(published)
    benchmarks = sorted({one.benchmark for one in published}, key=_order)
    parts = [INTRODUCTION]
    for name in benchmarks:
        own = [one for one in ours if same_benchmark(one.benchmark, name)]
        rows = _rows([one for one in published if one.benchmark == name], own, letters)
        parts.append(f"## {name}\n\n| model | published | here |\n|---|---|---|\n" + "\n".join(rows))
    parts.append(
        "## Sources\n\n" + "\n".join(f"- {line}" for line in sources_of(published, letters, markdown=True))
    )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def source_letters(published: Iterable[Published]) -> dict[str, str]:
    """Return a letter for each source, in the order of the tables."""
    sources = dict.fromkeys(one.source for one in published)
    return {source: chr(ord("a") + place) for place, source in enumerate(sources)}


def _order(benchmark: str) -> tuple[int, str]:
    return (FIRST.index(benchmark) if benchmark in FIRST else len(FIRST)), benchmark


def _rows(published: Iterable[Published], ours: Iterable[Own], letters: Mapping[str, str]) -> Iterator[str]:
    """Yield one row per model and meaning of the number; equal numbers are written once."""
    cells: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in published:
        number = f"**{one.shown()}**" if one.origin == "own run" else one.shown()
        cells[one.model, _part(one)][number].append(letters[one.source])
    mine = {one.model: _ours(one) for one in ours}
    for (model, part), numbers in sorted(cells.items(), key=lambda item: (item[0][0].lower(), item[0][1])):
        text = ", ".join(f"{number} ({' '.join(found)})" for number, found in numbers.items())
        yield f"| {model}{part} | {text} | {mine.get(model, '–')} |"


def _ours(one: Own) -> str:
    low, high = one.interval
    return f"{one.number:.1f} ({low:.1f} – {high:.1f}, {one.protocol})"


def _part(one: Published) -> str:
    """Return the part of the benchmark that a number is of, if it is not of all."""
    if one.value is not None and one.value.startswith("groups."):
        return f", {one.value.rsplit('.', 1)[-1]}"
    return ""


def sources_of(
    published: Iterable[Published], letters: Mapping[str, str], *, markdown: bool = False
) -> Iterator[str]:
    """Yield one line per source: its letter, address, how it was read, rule, settings and notes."""
    found: dict[str, list[Published]] = defaultdict(list)
    for one in published:
        found[one.source].append(one)
    for source, rows in found.items():
        first, letter = rows[0], letters[source]
        name = f"**{letter}** [{source}]({first.url})" if markdown else f"{letter}: {source}, {first.url}"
        yield f"{name}, read {first.read}. Rule: {_rules(rows)}. {_behind(rows)}{_notes(rows)}"


def _notes(rows: Sequence[Published]) -> str:
    """Return the notes of a source: what concerns all its numbers, then by model."""
    notes = [rows[0].about] if rows[0].about else []
    notes += dict.fromkeys(f"{one.model}: {one.note}" for one in rows if one.note)
    return f" Notes: {'; '.join(notes)}." if notes else ""


def _rules(rows: Iterable[Published]) -> str:
    return "; ".join(dict.fromkeys(one.rule for one in rows))


def _behind(rows: Sequence[Published]) -> str:
    """Return the settings that the source states, and how many of its numbers they are behind."""
    stated = {
        name: value
        for one in rows
        for name, value in one.settings.stated().items()
        if name != "max_new_tokens"
    }
    limits = sorted({one.settings.max_new_tokens for one in rows if one.settings.max_new_tokens})
    shown = [f"{name} {_value(value)}" for name, value in stated.items()]
    shown += [f"max_new_tokens {' or '.join(f'{limit:,}' for limit in limits)}"] if limits else []
    return f"Settings: {', '.join(shown)}." if shown else "Settings: not stated."


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(f"`{one}`" for one in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
