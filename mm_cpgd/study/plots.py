"""Plots of the study: accuracy curves, collapses by learning rate, and metrics of a single run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mm_cpgd.study.grid import Grid, method_named, rate_text
from mm_cpgd.study.results import ACCURACY, StudyRun

_INK, _MUTED, _LINE = "#1f2328", "#59636e", "#d1d9e0"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
Curve = list[tuple[int, float]]


def draw_plots(folder: Path, summary: Mapping[str, Any], grid: Grid, runs: Sequence[StudyRun]) -> list[str]:
    """Write PNG files into ``folder``; return their names in the order of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    hardest = max(grid.updates)
    with matplotlib.rc_context(_STYLE):
        figures = {"collapse.png": draw_collapses(summary, grid)}
        for updates in grid.updates:
            figures[f"accuracy-{updates}.png"] = draw_curves(
                grid, runs, ACCURACY, updates, "held-out accuracy", percent=True
            )
        for name, metric, label, logarithmic in (
            ("drift", "policy/drift", "policy drift, nats per token", True),
            ("ratio", "policy/ratio_max", "largest ratio of the iteration", True),
            ("clip", "policy/clip_fraction", "clip fraction", False),
            ("entropy", "policy/entropy", "entropy, nats", False),
        ):
            figures[f"{name}.png"] = draw_curves(
                grid, runs, metric, hardest, label, logarithmic=logarithmic, percent=name == "clip"
            )
        for name, figure in figures.items():
            figure.savefig(folder / name, dpi=110, metadata={"Software": None})
    return list(figures)


def draw_collapses(summary: Mapping[str, Any], grid: Grid) -> Figure:
    """Draw collapsed runs by objective (best first) and learning rate, one panel per number of updates."""
    names = summary["ranking"] or list(grid.methods)
    figure = Figure(figsize=(9, 1 + 0.3 * len(names)), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(grid.updates), sharey=True, squeeze=False)[0]
    for axes, updates in zip(panels, grid.updates, strict=True):
        stresses = [stress for stress in grid.stresses if stress.updates == updates]
        cells = [
            [summary["methods"][name]["by_stress"][stress.label]["collapse"] for stress in stresses]
            for name in names
        ]
        rates = [[cell["rate"] if cell["total"] else float("nan") for cell in row] for row in cells]
        axes.imshow(rates, vmin=0, vmax=1.25, cmap="Reds", aspect="auto")
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                text = f"{cell['count']}/{cell['total']}" if cell["total"] else "–"
                color = "white" if (cell["rate"] or 0) > 0.6 else _INK
                axes.text(x, y, text, ha="center", va="center", color=color)
        axes.set_xticks(range(len(stresses)), [rate_text(stress.rate) for stress in stresses])
        axes.set_yticks(range(len(names)), [method_named(name).label for name in names])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.set_title(_updates(updates), color=_INK)
        axes.set_xlabel("learning rate", color=_MUTED)
    return figure


def draw_curves(
    grid: Grid,
    runs: Sequence[StudyRun],
    metric: str,
    updates: int,
    label: str,
    *,
    percent: bool = False,
    logarithmic: bool = False,
) -> Figure:
    """Draw one panel per objective: a thin line per run, the median over seeds thick, coloured by rate."""
    columns = 5 if len(grid.methods) > 8 else 4
    rows = -(-len(grid.methods) // columns)
    figure = Figure(figsize=(10, 0.9 + 1.7 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    colours = _colours(grid.rates)
    for axes, name in zip(panels, grid.methods, strict=False):
        for rate in grid.rates:
            curves = [
                _curve(run, metric)
                for run in runs
                if (run.trial.method, run.trial.stress.rate, run.trial.stress.updates)
                == (name, rate, updates)
            ]
            _draw_group(axes, curves, colours[rate], rate_text(rate))
        axes.set_title(method_named(name).label, color=_INK)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if percent:
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        if logarithmic:
            axes.set_yscale("symlog", linthresh=1e-4) if "drift" in metric else axes.set_yscale("log")
    shown = panels[: len(grid.methods)]
    for axes in shown[-columns:]:  # no panel is below them
        axes.tick_params(labelbottom=True)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) or 1, title="learning rate")
    figure.suptitle(f"{label} by iteration, {_updates(updates)}", fontsize=10, color=_INK)
    return figure


def _draw_group(axes: Axes, curves: Sequence[Curve], colour: Any, label: str) -> None:
    for curve in curves:
        axes.plot(*_coordinates(curve), color=colour, linewidth=0.5, alpha=0.5)
    axes.plot(*_coordinates(median_curve(curves)), color=colour, linewidth=1.8, label=label)


def median_curve(curves: Sequence[Curve]) -> Curve:
    """Return the median at each iteration, over the runs that reached it."""
    values: dict[int, list[float]] = {}
    for curve in curves:
        for at, value in curve:
            values.setdefault(at, []).append(value)
    return [(at, median(own)) for at, own in sorted(values.items())]


def _curve(run: StudyRun, metric: str) -> Curve:
    return [(row["iteration"], row[metric]) for row in run.rows if row.get(metric) is not None]


def _coordinates(curve: Curve) -> tuple[list[int], list[float]]:
    return [at for at, _ in curve], [value for _, value in curve]


def _colours(rates: Sequence[float]) -> dict[float, Any]:
    """Return a colour per rate, from blue for the lowest to orange for the highest."""
    tone: Callable[[float], Any] = matplotlib.colormaps["plasma"]
    return {rate: tone(0.05 + 0.75 * i / max(1, len(rates) - 1)) for i, rate in enumerate(rates)}


def _updates(count: int) -> str:
    return "1 update per rollout batch" if count == 1 else f"{count} updates per rollout batch"
