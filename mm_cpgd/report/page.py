"""Puts the report's page together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from mm_cpgd.config.yaml import dump_yaml
from mm_cpgd.report.charts import draw_charts, draw_others
from mm_cpgd.report.examples import choose_rollouts, is_right
from mm_cpgd.report.run_data import RunData, Share, load_run, number
from mm_cpgd.tracking.files import writing

LONGEST_TEXT = 6_000
"""Characters of a completion that are shown."""
# C0 and C1 control characters but tab and newline, lone surrogates, and the marks that reorder text.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder from what lies there, and return its path.

    Reads ``config.yaml``, ``metrics.jsonl``, ``summary.json`` and ``rollouts/``; each may be absent, but not
    both of the first two. Raises ``UserError`` for a folder that is no run, or a broken file in it.
    """
    data = load_run(run)
    page = _environment().get_template("report.html.jinja").render(
        name=str(data.setting("name") or run.resolve().name),
        facts=facts(data),
        before=data.held_out()[0],
        after=data.held_out()[1],
        charts=draw_charts(data),
        others=draw_others(data),
        rollouts=choose_rollouts(run / "rollouts"),
        config=dump_yaml(dict(data.config)) if data.config else "",
    )  # fmt: skip
    report = run / "report.html"
    with writing(report):
        temporary = report.with_name(".report.html.tmp")
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, report)
    return report


def facts(data: RunData) -> list[tuple[str, str]]:
    """Return the header's labels and values; what a run lacks is left out."""
    rows = data.metrics
    written = {
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
    return [(label, str(value)) for label, value in written.items() if value is not None]


def duration(seconds: float) -> str:
    """Return ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def visible(text: Any, longest: int = LONGEST_TEXT) -> str:
    """Return text without control characters (each becomes �), cut with a note of how much is missing."""
    whole = _UNSEEN.sub("�", str(text).replace("\r\n", "\n"))
    rest = len(whole) - longest
    return whole if rest <= 0 else f"{whole[:longest]}… ({rest:,} more characters)"


def percent(value: float) -> str:
    """Return ``41.8 %``."""
    return f"{100 * value:.1f} %"


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


def _seconds(data: RunData, part: str) -> str | None:
    seconds = number(data.summary.get("seconds", {}).get(part)) if _has_seconds(data) else None
    if seconds is None and part == "rl":
        seconds = sum(value for _, value in data.series("seconds/iteration")) or None
    return None if seconds is None else duration(seconds)


def _guard(data: RunData) -> str | None:
    """When it alarmed and where it went back; None if it was silent."""
    alarmed = [iteration for iteration, count in data.series("guard/alarms") if count]
    if not alarmed:
        return None
    back = ", ".join(f"{i} → {target:.0f}" for i, target in data.series("guard/rolled_back_to"))
    said = f"alarm in {len(alarmed):,} of {len(data.metrics):,} iterations, first in {alarmed[0]:,}"
    return f"{said}; went back {back}" if back else said


def _has_seconds(data: RunData) -> bool:
    return isinstance(data.summary.get("seconds"), Mapping)


def _count(data: RunData, key: str) -> str | None:
    total = sum(value for _, value in data.series(key))
    return f"{total:,.0f}" if total else None


def _environment() -> jinja2.Environment:
    # Autoescape by hand: jinja guesses from the file's ending, and .jinja is none that it escapes.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mm_cpgd", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        part.__name__: part for part in (visible, percent, interval, signed, score, is_right)
    }
    return environment
