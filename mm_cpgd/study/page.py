"""Page of a study: Markdown whose tables and sentences are generated from ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mm_cpgd.study.grid import (
    METHODS,
    PILOT_SEEDS,
    QUICK,
    Grid,
    Method,
    config_of,
    grid_from,
    method_named,
    rate_text,
)
from mm_cpgd.study.plots import draw_plots
from mm_cpgd.study.results import LARGEST_FALL, NEAR, StudyRun
from mm_cpgd.study.summary import stress_of
from mm_cpgd.tracking.files import write_lines

# Marks of the section that is written by hand. Existing pages hold them: do not change their text.
READING = (
    "<!-- reading: written by hand, kept when the page is made again -->",
    "<!-- end of the reading -->",
)
MAX_AHEAD_SHOWN = 12
"""Limit of the list of cases where another objective was ahead of CPGD, widest gap first."""


def write_page(
    page: Path,
    summary: Mapping[str, Any],
    runs: Sequence[StudyRun],
    guard: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a study and its plots, which go to a folder with the page's name; return the page.

    Text between the marks ``READING`` of an existing page is kept.
    """
    grid = grid_from(dict(summary["grid"]))
    plots = draw_plots(page.with_suffix(""), summary, grid, runs) if runs else []
    reading = reading_of(page.read_text(encoding="utf-8")) if page.is_file() else ""
    shown = [f"{page.stem}/{name}" for name in plots]
    write_lines(page, [render(grid, summary, shown, guard, reading)])
    return page


def reading_of(text: str) -> str:
    """Return the text between the marks in a page, "" without marks."""
    return text.partition(READING[0])[2].partition(READING[1])[0].strip()


def render(
    grid: Grid,
    summary: Mapping[str, Any] | None,
    plots: Sequence[str] = (),
    guard: Mapping[str, Any] | None = None,
    reading: str = "",
) -> str:
    """Return the page; without a summary, or with an empty one, it describes the planned study."""
    environment = Environment(
        loader=PackageLoader("mm_cpgd.study", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown without external input
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
        pilot=", ".join(map(str, PILOT_SEEDS)),
        config=config_of(grid.trials()[0], Path("unused"), grid.changes),
        methods=METHODS if not done else [method_named(name) for name in grid.methods],
        label=lambda name: method_named(name).label,
        notes=[(method.label, method.note) for method in METHODS if method.note],
        summary=summary if done else None,
        ahead=ahead(summary) if done and summary else None,
        plots=plots,
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
    """Return the numbers of the comparisons in which CPGD was not the best."""
    cases = sorted(summary["ahead_of_cpgd"], key=lambda case: -case["mean"])
    significant = [case for case in cases if (case["low"] or 0) > 0]
    grid = grid_from(dict(summary["grid"]))
    return {
        "compared": len(grid.stresses) * (len(grid.methods) - 1),
        "higher": len(cases),
        "significant": len(significant),
        "shown": [
            {**case, "label": method_named(case["method"]).label, "stress": stress_of(case).label}
            for case in cases[:MAX_AHEAD_SHOWN]
        ],
    }


def percent(mean: Mapping[str, Any]) -> str:
    """Format a share in percent: ``{"mean": 0.5, "low": 0.4, "high": 0.6}`` → ``50 (40–60)``."""
    if mean["mean"] is None:
        return "–"
    if mean["n"] == 1:
        return f"{100 * mean['mean']:.0f}"
    return f"{100 * mean['mean']:.0f} ({100 * mean['low']:.0f}–{100 * mean['high']:.0f})"


def points(mean: Mapping[str, Any]) -> str:
    """Format a difference of accuracies in points: ``+3.1 (−1.0 to +7.2)``."""
    if mean["mean"] is None:
        return "–"
    first = _signed(mean["mean"])
    return first if mean["n"] == 1 else f"{first} ({_signed(mean['low'])} to {_signed(mean['high'])})"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def number(mean: Mapping[str, Any]) -> str:
    """Format a mean without its interval, three digits."""
    return "–" if mean["mean"] is None else f"{mean['mean']:.3g}"


def extreme(value: float | None) -> str:
    """Format a number that may be missing, three digits."""
    return "–" if value is None else f"{value:.3g}"


def share(counted: Mapping[str, Any]) -> str:
    """Format a share of runs with its interval: ``12/60 = 20 % (12–32)``."""
    if not counted["total"]:
        return "–"
    low, high = counted["interval"]
    return (
        f"{counted['count']}/{counted['total']} = {100 * counted['rate']:.0f} % "
        f"({100 * low:.0f}–{100 * high:.0f})"
    )
