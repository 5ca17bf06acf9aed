"""Charts of the report as inline SVG, in colours that the page decides (light or dark)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mm_cpgd.report.run_data import RunData, Series, share


@dataclass(frozen=True)
class ChartSpec:
    """Specification of one chart: the metrics that it shows, and how.

    Attributes:
        lines: label by metric key; keys that a run lacks are left out.
        about: one sentence on the meaning and on what a healthy run shows.
        percent: whether the values are shares.
        band: metric drawn as ± around the first line.
        points: label by key of evaluation shares; drawn with an interval where ``eval/n`` is present.
    """

    title: str
    about: str
    lines: Mapping[str, str]
    percent: bool = False
    band: str | None = None
    points: Mapping[str, str] = field(default_factory=dict)


CHARTS = (
    ChartSpec(
        "Loss",
        "Negative log-likelihood per solution token, in nats. Should fall.",
        {"sft/loss": "loss"},
    ),
    ChartSpec(
        "Reward",
        "Mean over completions, ± one standard deviation. Should rise.",
        {"reward/mean": "mean"},
        band="reward/std",
    ),
    ChartSpec(
        "Accuracy",
        "Share of correct answers: sampled on training prompts, greedy on held-out ones.",
        {"accuracy/train": "train"},
        percent=True,
        points={"eval/accuracy": "held-out"},
    ),
    ChartSpec(
        "Format",
        "Mean format score; on held-out examples the share in the required format.",
        {"reward/format": "train"},
        percent=True,
        points={"eval/format": "held-out"},
    ),
    ChartSpec(
        "Policy drift",
        "KL to the old policy, k3 estimate per token. Should stay small.",
        {"policy/drift": "drift"},
    ),
    ChartSpec(
        "Clip fraction",
        "Share of tokens whose gradient the clip sets to zero.",
        {"policy/clip_fraction": "clipped"},
        percent=True,
    ),
    ChartSpec(
        "Ratio to the old policy",
        "Largest and smallest π/π_old of any token. Should stay near 1.",
        {"policy/ratio_max": "largest", "policy/ratio_min": "smallest"},
    ),
    ChartSpec(
        "Entropy",
        "Entropy of the next token, in nats. A fall to 0 means that exploration has ended.",
        {"policy/entropy": "entropy"},
    ),
    ChartSpec(
        "Dependence on the picture",
        "KL between the tokens behind the picture and behind a changed one, in nats. Near 0: answers without "
        "looking.",
        {"policy/visual_kl": "visual KL"},
    ),
    ChartSpec("Completion length", "Mean, in tokens.", {"completion/length_mean": "tokens"}),
    ChartSpec(
        "Shares to watch",
        "Completions cut at the limit; prompts whose rewards are all equal; unscored completions.",
        {"completion/truncated": "cut off", "groups/no_signal": "no signal", "reward/unscored": "no score"},
        percent=True,
    ),
    ChartSpec("Gradient norm", "Before clipping.", {"optimizer/grad_norm": "norm"}),
    ChartSpec("Learning rate", "Of the last optimizer step.", {"optimizer/learning_rate": "rate"}),
    ChartSpec(
        "Seconds per iteration",
        "Wall clock by phase.",
        {"seconds/rollout": "rollout", "seconds/reward": "reward", "seconds/update": "update"},
    ),
    ChartSpec(
        "Objective",
        "Minimised by the optimizer; its value means little.",
        {"objective/loss": "loss"},
    ),
)


MOST_POINTS = 400
"""Longer series are drawn as means of adjacent points, so that the page stays small."""
# Placeholder colours, replaced by the page's CSS variables, which matplotlib does not support.
_COLORS = {"#010101": "var(--ink)", "#020202": "var(--line)", "#030303": "var(--muted)"} | {
    f"#0400{i:02x}": f"var(--series-{i})" for i in range(4)
}
_INK, _LINE, _MUTED, *_SERIES = _COLORS
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Chart:
    """A drawn chart. ``svg`` is safe to insert: it contains only numbers and the texts of ``ChartSpec``."""

    title: str
    about: str
    svg: str


_KNOWN = {key for spec in CHARTS for key in (*spec.lines, *spec.points, spec.band)}
_NOT_DRAWN = {"eval/n", "seconds/iteration", "tokens/per_second", "optimizer/skipped", "seconds/guard"}


def draw_charts(run: RunData) -> list[Chart]:
    """Return the charts of ``CHARTS`` that the run has numbers for."""
    return [chart for spec in CHARTS if (chart := _draw(run, spec))]


def draw_other_metrics(run: RunData, most: int = 24) -> list[Chart]:
    """Return a chart for each metric that ``CHARTS`` does not show (one rule's reward, ``sft``)."""
    excluded = _KNOWN | _NOT_DRAWN
    keys = [key for key in run.metric_names() if key not in excluded and not key.startswith("guard/")]
    # A key is free text from a file: only the template, which escapes, may write it, not the SVG.
    charts = [_draw(run, ChartSpec(key, "", {key: "value"})) for key in keys[:most]]
    return [chart for chart in charts if chart]


def _draw(run: RunData, spec: ChartSpec) -> Chart | None:
    lines = {label: run.series(key) for key, label in spec.lines.items()}
    points = {key: run.series(key) for key in spec.points}
    if not any(lines.values()) and not any(points.values()):
        return None
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": spec.title}):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        if spec.band:
            _draw_band(axes, run, next(iter(spec.lines)), spec.band)
        for color, (label, series) in zip(_SERIES, lines.items(), strict=False):
            _draw_line(axes, series, label, color)
        for key, series in points.items():
            _draw_points(axes, run, series, spec.points[key])
        _finish(axes, spec.percent)
        return Chart(spec.title, spec.about, _to_svg(figure))


def _draw_line(axes: Axes, series: Series, label: str, color: str) -> None:
    if not series:
        return
    x, y = zip(*shorten_series(series), strict=True)
    if len(series) < 40:
        axes.plot(x, y, color=color, label=label, marker="o", markersize=2.5)
    else:
        axes.plot(x, y, color=color, alpha=0.3, linewidth=0.8)
        axes.plot(x, rolling_mean(y, max(3, len(y) // 20 | 1)), color=color, label=label)


def _draw_band(axes: Axes, run: RunData, key: str, spread: str) -> None:
    spreads = dict(run.series(spread))
    rows = [(at, value, spreads[at]) for at, value in run.series(key) if at in spreads]
    if len(rows) > 1:
        low = shorten_series([(at, value - width) for at, value, width in rows])
        high = shorten_series([(at, value + width) for at, value, width in rows])
        x = [at for at, _ in low]
        axes.fill_between(
            x, [y for _, y in low], [y for _, y in high], color=_SERIES[0], alpha=0.12, linewidth=0
        )


def _draw_points(axes: Axes, run: RunData, series: Series, label: str) -> None:
    if not series:
        return
    counts = dict(run.series("eval/n"))
    x, y = zip(*series, strict=True)
    shares = [share(value, counts.get(at)) for at, value in series]
    ends = [(s.value - s.low, s.high - s.value) if s and s.low is not None and s.high is not None else (0, 0)
            for s in shares]  # fmt: skip
    axes.errorbar(x, y, list(zip(*ends, strict=True)), fmt="o", markersize=4.5, capsize=2, elinewidth=1,
                  color=_SERIES[1], label=label, zorder=3)  # fmt: skip


def _finish(axes: Axes, percent: bool) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %" if percent else f"{value:.4g}")
    axes.tick_params(length=0)
    axes.margins(x=0.02)
    axes.set_xlabel("iteration", color=_MUTED, fontsize=10)
    if percent:
        low, high = axes.get_ylim()
        axes.set_ylim(max(-0.02, low), min(1.02, max(high, 0.05)))
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="best", ncols=3, handlelength=1.2, columnspacing=1.2)


def shorten_series(series: Series, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Return at most ``most`` points, each the mean (of both coordinates) of equally many adjacent ones."""
    size = -(-len(series) // most)
    blocks = [series[start : start + size] for start in range(0, len(series), size)] if size else []
    return [(_mean([at for at, _ in block]), _mean([value for _, value in block])) for block in blocks]


def rolling_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the ``window`` values (an odd number) around each position; of fewer at the ends."""
    half = window // 2
    return [_mean(values[max(0, at - half) : at + half + 1]) for at in range(len(values))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    for placeholder, variable in _COLORS.items():
        svg = svg.replace(placeholder, variable)
    return svg
