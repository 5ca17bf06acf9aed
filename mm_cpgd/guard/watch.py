"""Alarms of a run: pure functions of the rows of its ``metrics.jsonl``, during training or replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_cpgd.config.yaml import read_yaml
from mm_cpgd.errors import UserError
from mm_cpgd.guard.signals import SIGNALS, CollapseSignal
from mm_cpgd.guard.trend_tests import HELD_OUT, Finding, History, Row, trim, value_of
from mm_cpgd.tracking import read_metrics

ROLLED_BACK_TO = "guard/rolled_back_to"
QUIET_ITERATIONS = 5
"""Iterations without a signal after which it is reported again."""


@dataclass(frozen=True)
class Alarm:
    """A collapse signal at or above its threshold.

    Attributes:
        iteration: iteration whose row shows it.
        signal: the signal.
        strength: 1 at the threshold.
        evidence: the numbers.
    """

    iteration: int
    signal: CollapseSignal
    strength: float
    evidence: str

    @property
    def line(self) -> str:
        """One line: the signal, its probable cause and its remedy."""
        signal = self.signal
        what = f"iteration {self.iteration}: {signal.name}: {self.evidence}"
        return f"{what}; probably {signal.cause}; to fix: {signal.remedy}"


def watch(
    rows: Sequence[Row], *, completions: int = 8, signals: Sequence[CollapseSignal] = SIGNALS
) -> list[Alarm]:
    """Return the alarms of the newest row, which is tested against the rows before it.

    Args:
        rows: rows of ``metrics.jsonl``, oldest first; rows reduced by ``trim`` yield the same alarms.
        completions: G, completions per prompt.
        signals: signals to test.
    """
    found = signal_strengths(rows, completions=completions, signals=signals)
    return [
        Alarm(int(rows[-1]["iteration"]), signal, finding.strength, finding.text)
        for signal, finding in found
        if finding.strength >= 1
    ]


def signal_strengths(
    rows: Sequence[Row], *, completions: int = 8, signals: Sequence[CollapseSignal] = SIGNALS
) -> list[tuple[CollapseSignal, Finding]]:
    """Return the strength of each signal in the newest row (1: threshold); undecidable ones are left out."""
    history = History(trim(rows), completions)
    found = ((signal, signal.find(history)) for signal in signals)
    return [(signal, finding) for signal, finding in found if finding is not None]


def replay(
    rows: Sequence[Row], *, completions: int = 8, signals: Sequence[CollapseSignal] = SIGNALS
) -> Iterator[Alarm]:
    """Yield the alarms of a stored run, each signal when it appears (see ``new_alarms``).

    At a rollback in the run, the rows after the restored snapshot are discarded.
    """
    past: list[Row] = []
    last_seen: dict[str, int] = {}
    for row in rows:
        past.append(row)
        yield from new_alarms(watch(past, completions=completions, signals=signals), last_seen)
        past, last_seen = after_rollback(past, last_seen)


def new_alarms(alarms: Sequence[Alarm], last_seen: dict[str, int]) -> list[Alarm]:
    """Return the alarms whose signal was absent for ``QUIET_ITERATIONS``.

    Args:
        alarms: all alarms of an iteration.
        last_seen: name of a signal to the iteration of its last alarm; updated.
    """
    never = -QUIET_ITERATIONS - 1
    new = [
        alarm
        for alarm in alarms
        if alarm.iteration - last_seen.get(alarm.signal.name, never) > QUIET_ITERATIONS
    ]
    last_seen |= {alarm.signal.name: alarm.iteration for alarm in alarms}
    return new


def after_rollback(past: list[Row], last_seen: dict[str, int]) -> tuple[list[Row], dict[str, int]]:
    """Return rows and ``last_seen`` without what a rollback in the newest row discarded, if it holds one."""
    target = value_of(past[-1], ROLLED_BACK_TO)
    if target is None:
        return past, last_seen
    return [row for row in past if row["iteration"] <= target], {}


def halved_at(rows: Sequence[Row], metric: str = HELD_OUT) -> int | None:
    """Return the first iteration at which a metric is below half of its best so far, None if it never is."""
    best = 0.0
    for row in rows:
        value = value_of(row, metric)
        if value is not None and value < best / 2:
            return int(row["iteration"])
        best = max(best, value or 0.0)
    return None


@dataclass(frozen=True)
class ReplayedRun:
    """A stored run and its alarms.

    Attributes:
        name: name of its folder.
        iterations: iteration of its last row.
        alarms: alarms in order, each signal when it appears.
        halved: first iteration whose held-out accuracy is below half of the best before, None if there is
            none; known only where the run was evaluated.
    """

    name: str
    iterations: int
    alarms: list[Alarm]
    halved: int | None

    @property
    def first(self) -> Alarm | None:
        """The first alarm that triggers rollback or stop."""
        return next((alarm for alarm in self.alarms if alarm.signal.actionable), None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data; ``lead`` is the number of iterations from the alarm to the halving."""
        first = self.first
        return {
            "run": self.name,
            "iterations": self.iterations,
            "alarm": first and first.iteration,
            "sign": first and first.signal.name,
            "halved": self.halved,
            "lead": None if first is None or self.halved is None else self.halved - first.iteration,
            "alarms": [
                {
                    "iteration": alarm.iteration,
                    "sign": alarm.signal.name,
                    "acts": alarm.signal.actionable,
                    "strength": alarm.strength,
                    "seen": alarm.evidence,
                }
                for alarm in self.alarms
            ],
        }


def replay_run(run: Path) -> ReplayedRun:
    """Replay a run folder or a ``metrics.jsonl``.

    Raises:
        UserError: the metrics are absent, empty or damaged.
    """
    file = run / "metrics.jsonl" if run.is_dir() else run
    rows = read_metrics(file)
    if not rows:
        raise UserError(f"{run} has no metrics: {file} is absent or empty; pass the folder of a run")
    completions = _completions(file.with_name("config.yaml"))
    return ReplayedRun(
        run.resolve().name,
        rows[-1]["iteration"],
        list(replay(rows, completions=completions)),
        halved_at(rows),
    )


def _completions(config: Path) -> int:
    """Return G of the run; the default if its config is not beside the metrics."""
    rollout = read_yaml(config).get("rollout") if config.is_file() else None
    written = rollout.get("completions") if isinstance(rollout, dict) else None
    return written if isinstance(written, int) and written > 0 else 8
