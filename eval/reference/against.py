"""A result beside the published numbers of its model: the difference, and what differs behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.benchmarks import benchmark_of
from eval.reference.names import Found, find_model, generation_settings, recognise
from eval.reference.tables import Published, load_published, same_benchmark, shown_number

Summary = Mapping[str, Any]
# Published numbers are rounded: half a unit of their last digit, in points.
ROUNDING = 0.05
UNKNOWN = "the settings of these responses are not stored"
_SPLITS = {"mini": "testmini", "full": "test", "val": "validation", "test average": "test"}


@dataclass(frozen=True)
class Against:
    """A result's number, by one protocol, beside a published one; numbers in percent.

    Attributes:
        published: the published number.
        protocol: protocol of the result.
        number: the result's number of the same meaning; None if it has none, or the source names none.
        interval: its 95 % interval, None for a metric without one.
        n: number of questions behind it.
        difference: ``number`` less the published one, in points.
        inside: whether the published number lies in the interval.
        others: where the source does not say which number it is, the result's numbers by name.
        differs: settings that differ, one line each.
        unstated: names of settings that the source does not state.
    """

    published: Published
    protocol: str
    number: float | None
    interval: tuple[float, float] | None
    n: int | None
    difference: float | None
    inside: bool | None
    others: Mapping[str, float]
    differs: Sequence[str]
    unstated: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """A result beside all published numbers of its model on its benchmark.

    Attributes:
        found: which model it was recognised as, None for none that is in the tables.
        rows: one per published number and protocol of the result.
    """

    found: Found | None
    rows: Sequence[Against]


def compare_with_published(
    summary: Summary, published: Sequence[Published] | None = None, model: str | None = None
) -> Comparison:
    """Compare a result with the published numbers of its model.

    Args:
        summary: content of the result's ``summary.json``.
        published: the tables; None for the shipped ones.
        model: the model's name, None for the one that the result stores.
    """
    tables = load_published() if published is None else published
    settings = summary.get("settings", {})
    names = [one.model for one in tables]
    if model is not None:
        named = find_model(model, names)
        found = Found(named, "by --model") if named else None
    else:
        found = recognise(settings, names)
    # Replaced images measure something else.
    if found is None or settings.get("control"):
        return Comparison(found, [])
    mine = [
        one for one in tables
        if one.model == found.model and _on_benchmark(one, summary["benchmark"])
    ]  # fmt: skip
    if not mine:
        return Comparison(found, [])
    split = settings.get("split") or getattr(benchmark_of(summary), "split", None)
    behind = generation_settings(settings)
    rows = [_against(one, summary, name, behind, split) for one in mine for name in summary["protocols"]]
    return Comparison(found, rows)


def _on_benchmark(published: Published, name: str) -> bool:
    """Return whether a number is of a benchmark, or of the part that is a benchmark of its own here.

    MathVerse's split Vision Only is also ``mathverse_vision_only``, MEGA-Bench's core ``mega_bench_core``.
    """
    part = f"{published.benchmark} {published.split or ''}"
    return same_benchmark(published.benchmark, name) or same_benchmark(part, name)


def _against(
    published: Published, summary: Summary, protocol: str, settings: Summary, split: str | None
) -> Against:
    """Compare one number; ``settings`` are those of the generation, ``split`` is the result's."""
    own = summary["protocols"][protocol]
    number, interval, n = _value(own, published.value)
    difference = None if number is None else number - published.number
    inside = None
    if interval is not None and number is not None:
        inside = interval[0] - ROUNDING <= published.number <= interval[1] + ROUNDING
    differs = [*_run_differs(published, summary, n, split), *settings_differ(published, settings)]
    stated = published.settings.stated()
    unstated = [name for name in type(published.settings).model_fields if name not in stated]
    others = dict(_scalars(own)) if published.value is None else {}
    return Against(published, protocol, number, interval, n, difference, inside, others, differs, unstated)


def _value(own: Summary, path: str | None) -> tuple[float | None, tuple[float, float] | None, int | None]:
    """Return a protocol's number in percent, its interval and n; the path as in ``Published.value``."""
    if path is None:
        return None, None, None
    found: Any = own["overall"] if path == "accuracy" else _at(own, path)
    if isinstance(found, (int, float)):
        return 100 * found, None, None
    if not isinstance(found, Mapping) or found.get("accuracy") is None:
        return None, None, None
    low, high = found["interval"]
    return 100 * found["accuracy"], (100 * low, 100 * high), found["total"]


def _at(own: Summary, path: str) -> Any:
    section, _, rest = path.partition(".")
    found: Any = own.get(section, {})
    while rest and isinstance(found, Mapping):
        # Values of a dimension may contain dots, so the longest key goes first.
        keys = sorted((key for key in found if f"{rest}.".startswith(f"{key}.")), key=len)
        if not keys:
            return None
        found, rest = found[keys[-1]], rest[len(keys[-1]) + 1 :]
    return found


def _scalars(own: Summary) -> Iterator[tuple[str, float]]:
    """Yield a protocol's accuracy and its benchmark's own metrics that are shares, in percent."""
    accuracy = own["overall"]["accuracy"]
    if accuracy is not None:
        yield "accuracy", 100 * accuracy
    for name, value in own.get("metrics", {}).items():
        if isinstance(value, float) and 0 <= value <= 1:
            yield name, 100 * value


def _run_differs(published: Published, summary: Summary, n: int | None, split: str | None) -> Iterator[str]:
    """Yield what differs in the questions."""
    settings = summary.get("settings", {})
    if settings.get("limit"):
        yield f"questions: only the first {settings['limit']:,} here"
    elif published.n and n and published.n != n:
        yield f"questions: {published.n:,} there, {n:,} here"
    if split and _names_split(published, summary) and _split(split) != _split(published.split or ""):
        yield f"split: {published.split} there, {split} here"
    if settings.get("text_only"):
        yield "images: left out here"
    if settings.get("shots"):
        yield f"worked examples: {settings['shots']} before each question here"
    if settings.get("force_answer"):
        yield "responses that were cut off: their answer is forced here"
    if (summary.get("samples") or {}).get("k", 1) > 1:
        yield f"samples: the mean of {summary['samples']['k']} here"


def _names_split(published: Published, summary: Summary) -> bool:
    """Return whether a number's split is one of the benchmark's, not a group or a benchmark of its own."""
    group = (published.value or "").startswith("groups.")
    return bool(published.split) and not group and same_benchmark(published.benchmark, summary["benchmark"])


def _split(name: str) -> str:
    plain = name.lower().strip()
    return _SPLITS.get(plain, plain)


def settings_differ(published: Published, settings: Mapping[str, Any]) -> list[str]:
    """Return what differs between the settings behind a published number and a result's, one line each.

    Args:
        published: the published number; settings that its source does not state are not compared.
        settings: as stored by ``mm-cpgd eval``.
    """
    stated = published.settings.stated()
    if stated and "max_new_tokens" not in settings:
        return [UNKNOWN]
    lines = []
    for name, there in stated.items():
        if name != "markers" and settings.get(name) != there:
            lines.append(f"{name}: {_shown(there)} there, {_shown(settings.get(name))} here")
    return lines + _prompt_differs(stated.get("markers") or (), settings)


def _prompt_differs(markers: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    text = f"{settings.get('system_prompt') or ''}\n{settings.get('first_prompt') or ''}"
    absent = [marker for marker in markers if marker not in text]
    return [f"prompt: it asks for {' and '.join(absent)} there, not here"] if absent else []


def _shown(value: Any) -> str:
    if value is None:
        return "the processor's own"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def reference_lines(summary: Summary) -> list[str]:
    """Return what to say of published numbers at the end of a run; nothing if the model has none.

    The first line has their range beside the result's own number, each further one the settings that differ
    from those behind one of them.
    """
    comparison = compare_with_published(summary)
    first = summary.get("protocol")
    rows = [row for row in comparison.rows if row.protocol == first]
    found = comparison.found
    if found is None or not rows:
        return []
    name = found.model if not found.derived else f"{found.model} ({found.by})"
    lines = [f"published for {name} on {summary['benchmark']}: {_range(rows)}{_here(rows)}"]
    stated = [row for row in rows if row.published.settings.stated()]
    lines += [
        f"settings differ from those behind {row.published.shown()} ({row.published.source}): "
        f"{'; '.join(row.differs)}"
        for row in stated
        if row.differs and UNKNOWN not in row.differs
    ]
    if any(UNKNOWN in row.differs for row in stated):
        lines.append(f"{UNKNOWN}, so they cannot be compared with those behind published numbers")
    return lines


def _range(rows: Sequence[Against]) -> str:
    numbers = sorted(row.published.number for row in rows)
    sources = len({row.published.source for row in rows})
    span = " to ".join(dict.fromkeys(map(shown_number, (numbers[0], numbers[-1]))))
    return f"{span} ({sources} source{'s' * (sources > 1)}, each by its own rule)"


def _here(rows: Sequence[Against]) -> str:
    same = [row for row in rows if row.number is not None and row.interval is not None]
    if not same or len({row.published.value for row in rows}) > 1:
        return "; mm-cpgd reference RESULT compares them"
    row = same[0]
    low, high = row.interval or (0.0, 0.0)
    inside = sum(bool(one.inside) for one in same)
    return (
        f"; here {row.number:.1f} ({row.protocol}, 95 % interval {low:.1f} to {high:.1f}, which holds "
        f"{inside} of {len(same)})"
    )
