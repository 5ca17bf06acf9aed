"""The study's page: a Markdown file whose tables and sentences are made of ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mm_cpgd.study.grid import (
    METHODS,
    QUICK,
    TRIED_SEEDS,
    Grid,
    Method,
    config_of,
    grid_from,
    method_named,
    rate_text,
)
from mm_cpgd.study.plots import draw_pictures
from mm_cpgd.study.results import LARGEST_FALL, NEAR, Result
from mm_cpgd.study.summary import stress_of
from mm_cpgd.tracking.files import write_lines

READING = (
    "<!-- reading: written by hand, kept when the page is made again -->",
    "<!-- end of the reading -->",
)
SHOWN_AHEAD = 12
"""Of the places where another objective was ahead of CPGD, so many are listed, widest gap first."""


def write_page(
    page: Path,
    summary: Mapping[str, Any],
    results: Sequence[Result],
    guard: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a study and its pictures, which go to a folder of the page's name; return it.

    What a person has written between the marks ``READING`` of the page that is there is kept.
    """
    grid = grid_from(dict(summary["grid"]))
    pictures = draw_pictures(page.with_suffix(""), summary, grid, results) if results else []
    reading = reading_of(page.read_text(encoding="utf-8")) if page.is_file() else ""
    shown = [f"{page.stem}/{name}" for name in pictures]
    write_lines(page, [render(grid, summary, shown, guard, reading)])
    return page


def reading_of(text: str) -> str:
    """Return what stands between the marks in a page, "" without them."""
    return text.partition(READING[0])[2].partition(READING[1])[0].strip()


def render(
    grid: Grid,
    summary: Mapping[str, Any] | None,
    pictures: Sequence[str] = (),
    guard: Mapping[str, Any] | None = None,
    reading: str = "",
) -> str:
    """Return the page; without a summary, or with an empty one, it tells what will be done."""
    environment = Environment(
        loader=PackageLoader("mm_cpgd.study", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown; nothing in it comes from outside
    )
    environment.filters.update(
        percent=percent, points=points, number=number, share=share, rate=rate_text, extreme=extreme
    )
    done = bool(summary and summary["runs"]["done"])
    template = environment.get_template("stability.md.jinja")
    return template.render(
        grid=grid,
        quick=QUICK,
        full=Grid(),
        tried=", ".join(map(str, TRIED_SEEDS)),
        config=config_of(grid.trials()[0], Path("unused"), grid.changes),
        methods=METHODS if not done else [method_named(name) for name in grid.methods],
        label=lambda name: method_named(name).label,
        notes=[(method.label, method.note) for method in METHODS if method.note],
        summary=summary if done else None,
        ahead=ahead(summary) if done and summary else None,
        pictures=pictures,
        guard=guard,
        reading=reading,
        marks=READING,
        largest_fall=LARGEST_FALL,
        near=NEAR,
        cpgd=[method for method in METHODS if _is_cpgd(method) and method.name in grid.methods],
    ).strip()


def _is_cpgd(method: Method) -> bool:
    return method.recipe.startswith("cpgd")


def ahead(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page says of places where CPGD was not the best."""
    cases = sorted(summary["ahead_of_cpgd"], key=lambda case: -case["mean"])
    sure = [case for case in cases if (case["low"] or 0) > 0]
    grid = grid_from(dict(summary["grid"]))
    return {
        "compared": len(grid.stresses) * (len(grid.methods) - 1),
        "higher": len(cases),
        "sure": len(sure),
        "shown": [
            {**case, "label": method_named(case["method"]).label, "stress": stress_of(case).label}
            for case in cases[:SHOWN_AHEAD]
        ],
    }


def percent(mean: Mapping[str, Any]) -> str:
    """``{"mean": 0.5, "low": 0.4, "high": 0.6}`` → ``50 (40–60)``."""
    if mean["mean"] is None:
        return "–"
    if mean["n"] == 1:
        return f"{100 * mean['mean']:.0f}"
    return f"{100 * mean['mean']:.0f} ({100 * mean['low']:.0f}–{100 * mean['high']:.0f})"


def points(mean: Mapping[str, Any]) -> str:
    """A difference of accuracies in points: ``+3.1 (−1.0 to +7.2)``."""
    if mean["mean"] is None:
        return "–"
    first = _signed(mean["mean"])
    return first if mean["n"] == 1 else f"{first} ({_signed(mean['low'])} to {_signed(mean['high'])})"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def number(mean: Mapping[str, Any]) -> str:
    """A mean without its interval, three digits."""
    return "–" if mean["mean"] is None else f"{mean['mean']:.3g}"


def extreme(value: float | None) -> str:
    """Three digits of a number that may be missing."""
    return "–" if value is None else f"{value:.3g}"


def share(collapse: Mapping[str, Any]) -> str:
    """Collapses: ``12/60 = 20 % (12–32)``."""
    if not collapse["total"]:
        return "–"
    low, high = collapse["interval"]
    return (
        f"{collapse['count']}/{collapse['total']} = {100 * collapse['rate']:.0f} % "
        f"({100 * low:.0f}–{100 * high:.0f})"
    )
