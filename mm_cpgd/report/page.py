"""Training report: one HTML page from what a run folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm_cpgd.config.yaml import dump_yaml
from mm_cpgd.report.examples import choose_rollouts, is_right
from mm_cpgd.report.html import template_environment
from mm_cpgd.report.run_data import RunData, Share, load_run, number
from mm_cpgd.tracking.files import writing


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    Reads ``config.yaml``, ``metrics.jsonl``, ``summary.json`` and ``rollouts/``; each may be absent, but not
    both of the first two. Raises ``UserError`` if the folder is no run folder or a file in it is broken.
    """
    # Draws with matplotlib, which a run needs at its end only.
    from mm_cpgd.report.charts import draw_charts, draw_other_metrics

    data = load_run(run)
    environment = template_environment("mm_cpgd", "report")
    environment.filters |= {each.__name__: each for each in (interval, signed, score, is_right)}
    page = environment.get_template("report.html.jinja").render(
        name=str(data.setting("name") or run.resolve().name),
        facts=facts(data),
        before=data.held_out()[0],
        after=data.held_out()[1],
        charts=draw_charts(data),
        others=draw_other_metrics(data),
        rollouts=choose_rollouts(run / "rollouts"),
        config=dump_yaml(dict(data.config)) if data.config else "",
    )  # fmt: skip
    report = run / "report.html"
    with writing(report):
        temporary = report.with_name(".report.html.tmp")
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(report)
    return report


def facts(data: RunData) -> list[tuple[str, str]]:
    """Return the labels and values of the header; values that the run does not have are left out."""
    rows = data.metrics
    values = {
        "Model": data.setting("policy.model"),
        "Algorithm": data.setting("algorithm.recipe") or data.setting("algorithm.surrogate.name"),
        "Iterations": f"{rows[-1]['iteration']:,}" if rows else None,
        "Prompts × completions": _batch(data.setting("rollout")),
        "Learning rate": data.setting("training.learning_rate"),
        "Seed": data.setting("seed"),
        "Training": _seconds(data, "rl"),
        "Evaluation": _seconds(data, "eval"),
        "Skipped steps": _count(data, "optimizer/skipped"),
        "Guard": _guard(data),
    }
    return [(label, str(value)) for label, value in values.items() if value is not None]


def duration(seconds: float) -> str:
    """Return ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def interval(share: Share) -> str:
    """Return ``95 % interval 37.5–46.2 %, n = 500``, empty if n is not known."""
    if share.n is None or share.low is None or share.high is None:
        return ""
    return f"95 % interval {100 * share.low:.1f}–{100 * share.high:.1f} %, n = {share.n:,}"


def signed(value: float | None, digits: int = 2) -> str:
    """Return ``+0.71`` or ``−0.71``, ``–`` for None."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def score(value: float | None) -> str:
    """Return ``1`` or ``0.5``, ``–`` for None."""
    return "–" if value is None else f"{value:.3g}"


def _batch(rollout: Any) -> str | None:
    if not isinstance(rollout, Mapping) or "prompts" not in rollout or "completions" not in rollout:
        return None
    return f"{rollout['prompts']} × {rollout['completions']}"


def _seconds(data: RunData, phase: str) -> str | None:
    seconds = number(data.summary.get("seconds", {}).get(phase)) if _has_seconds(data) else None
    if seconds is None and phase == "rl":
        seconds = sum(value for _, value in data.series("seconds/iteration")) or None
    return None if seconds is None else duration(seconds)


def _guard(data: RunData) -> str | None:
    """Return when the guard alarmed and rolled back; None if it never alarmed."""
    alarmed = [iteration for iteration, count in data.series("guard/alarms") if count]
    if not alarmed:
        return None
    rollbacks = ", ".join(f"{i} → {target:.0f}" for i, target in data.series("guard/rolled_back_to"))
    alarms = f"alarm in {len(alarmed):,} of {len(data.metrics):,} iterations, first in {alarmed[0]:,}"
    return f"{alarms}; rolled back {rollbacks}" if rollbacks else alarms


def _has_seconds(data: RunData) -> bool:
    return isinstance(data.summary.get("seconds"), Mapping)


def _count(data: RunData, key: str) -> str | None:
    total = sum(value for _, value in data.series(key))
    return f"{total:,.0f}" if total else None
