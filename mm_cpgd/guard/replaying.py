"""The guard over stored runs: what it would have said, and how early."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_cpgd.config_yaml import read_yaml
from mm_cpgd.errors import UserError
from mm_cpgd.guard.watching import Alarm, halved_at, replay
from mm_cpgd.tracking import read_metrics


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
