"""Input of the report: the files of a run folder, any of which may be absent, incomplete or hostile."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_cpgd.config.yaml import read_yaml
from mm_cpgd.errors import UserError
from mm_cpgd.report.intervals import Z95, wilson_interval_of_share
from mm_cpgd.tracking import read_metrics

Series = list[tuple[int, float]]
"""Points (iteration, value), in order."""


@dataclass(frozen=True)
class Share:
    """A share of n with its 95 % Wilson score interval.

    Attributes:
        n: number of rows; None when it was not recorded, and then there is no interval.
        low: lower end, as a share.
        high: upper end.
    """

    value: float
    n: int | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RunData:
    """Contents of a run folder.

    Attributes:
        config: ``config.yaml``, not validated, so that old runs stay readable.
        metrics: rows of ``metrics.jsonl``.
        summary: ``summary.json``; empty if absent.
    """

    folder: Path
    config: Mapping[str, Any]
    metrics: list[dict[str, Any]]
    summary: Mapping[str, Any]

    def series(self, key: str) -> Series:
        """Return the finite values of one metric by iteration."""
        points = ((row["iteration"], number(row.get(key))) for row in self.metrics)
        return [(iteration, value) for iteration, value in points if value is not None]

    def metric_names(self) -> list[str]:
        """Return the names of all metrics, in order of first occurrence."""
        return list(dict.fromkeys(key for row in self.metrics for key in row if key != "iteration"))

    def setting(self, dotted: str) -> Any:
        """Return ``config["policy"]["model"]`` for ``policy.model``, None if it is absent."""
        return lookup(self.config, dotted)

    def held_out(self) -> tuple[Share | None, Share | None]:
        """Return held-out accuracy before and after training, from the summary or else from the metrics."""
        evaluations = self.series("eval/accuracy")
        counts = self.series("eval/n")
        n = number(lookup(self.summary, "accuracy.n")) or (counts[-1][1] if counts else None)
        first = evaluations[0][1] if evaluations else None
        last = evaluations[-1][1] if len(evaluations) > 1 else None
        before = number(lookup(self.summary, "accuracy.before"))
        after = number(lookup(self.summary, "accuracy.after"))
        return share(first if before is None else before, n), share(last if after is None else after, n)


def load_run(folder: Path) -> RunData:
    """Read a run folder. Raises ``UserError`` if the folder is absent or holds no run."""
    if not folder.is_dir():
        raise UserError(f"run folder {folder} does not exist; check the path")
    config, metrics = folder / "config.yaml", folder / "metrics.jsonl"
    if not config.is_file() and not metrics.is_file():
        raise UserError(f"{folder} is no run folder: it has neither config.yaml nor metrics.jsonl")
    return RunData(
        folder=folder,
        config=read_yaml(config) if config.is_file() else {},
        metrics=read_metrics(metrics),
        summary=_read_summary(folder / "summary.json"),
    )


def share(value: float | None, n: float | None) -> Share | None:
    """Return a share with its interval; None for None or a value outside 0 to 1."""
    if value is None or not 0 <= value <= 1:
        return None
    if not n or n < 1:
        return Share(value, None)
    low, high = wilson_interval_of_share(value, n, Z95)
    return Share(value, int(n), max(0.0, low), min(1.0, high))


def lookup(tree: Any, dotted: str) -> Any:
    """Return a nested value, None if a key on the path is absent."""
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def number(value: Any) -> float | None:
    """Return a finite number as float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _read_summary(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON ({error}); remove or fix the file") from None
    return value if isinstance(value, Mapping) else {}
