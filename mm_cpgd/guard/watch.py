"""Alarms of a run: pure functions of the rows of its ``metrics.jsonl``, live or replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_cpgd.config.yaml import read_yaml
from mm_cpgd.errors import UserError
from mm_cpgd.guard.signs import SIGNS, Sign
from mm_cpgd.guard.trend_tests import HELD_OUT, Finding, History, Row, trimmed, value_of
from mm_cpgd.tracking import read_metrics

ROLLED_BACK_TO = "guard/rolled_back_to"
QUIET = 5
"""Iterations without a sign after which it is news again."""


@dataclass(frozen=True)
class Alarm:
    """A sign that is present.

    Attributes:
        iteration: in whose row it shows.
        strength: 1 at the threshold.
        seen: the numbers.
    """

    iteration: int
    sign: Sign
    strength: float
    seen: str

    @property
    def line(self) -> str:
        """One line for a person: what, probably why, and what to turn."""
        sign = self.sign
        what = f"iteration {self.iteration}: {sign.name}: {self.seen}"
        return f"{what}; probably {sign.cause}; to mend: {sign.knob}"


def watch(rows: Sequence[Row], *, completions: int = 8, signs: Sequence[Sign] = SIGNS) -> list[Alarm]:
    """Return the signs that the newest row shows, seen against the rows before it.

    Args:
        rows: of ``metrics.jsonl``, oldest first; ``trimmed`` ones give the same answer.
        completions: G, completions a prompt.
        signs: which to look for.
    """
    found = strengths(rows, completions=completions, signs=signs)
    return [
        Alarm(int(rows[-1]["iteration"]), sign, finding.strength, finding.text)
        for sign, finding in found
        if finding.strength >= 1
    ]


def strengths(
    rows: Sequence[Row], *, completions: int = 8, signs: Sequence[Sign] = SIGNS
) -> list[tuple[Sign, Finding]]:
    """Return how near the newest row is to each sign (1: there); signs that cannot be judged are left out."""
    history = History(trimmed(rows), completions)
    found = ((sign, sign.find(history)) for sign in signs)
    return [(sign, finding) for sign, finding in found if finding is not None]


def replay(rows: Sequence[Row], *, completions: int = 8, signs: Sequence[Sign] = SIGNS) -> Iterator[Alarm]:
    """Go through a stored run and yield each sign when it appears; one that was there of late is not new.

    A rollback that the run made is followed: what came after the point it went back to is forgotten.
    """
    past: list[Row] = []
    seen: dict[str, int] = {}
    for row in rows:
        past.append(row)
        yield from newly(watch(past, completions=completions, signs=signs), seen)
        past, seen = after_rollback(past, seen)


def newly(alarms: Sequence[Alarm], seen: dict[str, int]) -> list[Alarm]:
    """Return the alarms whose sign was not there of late; notes in ``seen`` when each was there last."""
    new = [alarm for alarm in alarms if alarm.iteration - seen.get(alarm.sign.name, -QUIET - 1) > QUIET]
    seen |= {alarm.sign.name: alarm.iteration for alarm in alarms}
    return new


def after_rollback(past: list[Row], seen: dict[str, int]) -> tuple[list[Row], dict[str, int]]:
    """Return what is remembered once the newest row's rollback, if it made one, is done."""
    target = value_of(past[-1], ROLLED_BACK_TO)
    if target is None:
        return past, seen
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
class Replayed:
    """A run and its alarms.

    Attributes:
        iterations: of its last row.
        alarms: each sign when it appears.
        halved: first iteration whose held-out accuracy is below half of the best before, None if there is
            none; known only where the run was evaluated.
    """

    name: str
    iterations: int
    alarms: list[Alarm]
    halved: int | None

    @property
    def first(self) -> Alarm | None:
        """The first that rollback and stop heed."""
        return next((alarm for alarm in self.alarms if alarm.sign.acts), None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data; ``lead`` is how many iterations the alarm came before the halving."""
        first = self.first
        return {
            "run": self.name,
            "iterations": self.iterations,
            "alarm": first and first.iteration,
            "sign": first and first.sign.name,
            "halved": self.halved,
            "lead": None if first is None or self.halved is None else self.halved - first.iteration,
            "alarms": [
                {
                    "iteration": alarm.iteration,
                    "sign": alarm.sign.name,
                    "acts": alarm.sign.acts,
                    "strength": alarm.strength,
                    "seen": alarm.seen,
                }
                for alarm in self.alarms
            ],
        }


def replayed(run: Path) -> Replayed:
    """Replay a run folder or a ``metrics.jsonl``.

    Raises:
        UserError: there are no metrics, or broken ones.
    """
    file = run / "metrics.jsonl" if run.is_dir() else run
    rows = read_metrics(file)
    if not rows:
        raise UserError(f"{run} has no metrics: {file} is absent or empty; give the folder of a run")
    completions = _completions(file.with_name("config.yaml"))
    return Replayed(
        run.resolve().name,
        rows[-1]["iteration"],
        list(replay(rows, completions=completions)),
        halved_at(rows),
    )


def _completions(config: Path) -> int:
    """Return G of the run; the default where its config is not beside it."""
    rollout = read_yaml(config).get("rollout") if config.is_file() else None
    written = rollout.get("completions") if isinstance(rollout, dict) else None
    return written if isinstance(written, int) and written > 0 else 8
