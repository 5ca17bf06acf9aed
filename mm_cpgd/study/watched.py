"""A run of the study as the guard sees it, and one that it turned back; pure functions of stored rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mm_cpgd.guard.watching import ROLLED_BACK_TO, halved_at, replay
from mm_cpgd.study.grid import Trial
from mm_cpgd.study.outcome import ACCURACY, LARGEST_FALL, NEAR, Row, find_collapse
from mm_cpgd.study.results import Result

Kind = Literal["healthy", "declined", "collapsed"]


@dataclass(frozen=True)
class Watched:
    """A run of the study as the guard saw it.

    Attributes:
        kind: ``collapsed`` by the study's definition; ``healthy`` if it never fell far below its best;
            ``declined`` in between.
        signs: every sign that showed, with the iteration in which it first did.
        alarm: iteration of the first alarm that rollback and stop heed.
        sign: which it was.
        lost: the first evaluation below half the best before it; of a run that lost only its format, or ended
            with numbers that were not finite, the onset of its collapse.
    """

    trial: Trial
    kind: Kind
    signs: Mapping[str, int]
    alarm: int | None
    sign: str | None
    lost: int | None

    @property
    def lead(self) -> int | None:
        """Iterations from the alarm to the loss; None without the one or the other."""
        return None if self.alarm is None or self.lost is None else self.lost - self.alarm


@dataclass(frozen=True)
class Rescue:
    """A run that collapsed, done again with rollback.

    Attributes:
        calm: final held-out accuracy of the best run of the same objective and seed that did not collapse.
        without: final accuracy without the guard.
        guarded: accuracy of the policy that the guarded run ended with.
        rollbacks: how often it was turned back.
    """

    trial: Trial
    calm: float
    without: float
    guarded: float
    rollbacks: int

    @property
    def is_rescued(self) -> bool:
        """Whether it ended near the calm run."""
        return self.guarded >= self.calm - NEAR


def watched(result: Result, completions: int) -> Watched:
    """Replay the guard over a run.

    Args:
        result: of the study.
        completions: G of its config.
    """
    alarms = list(replay(result.rows, completions=completions))
    first = next((alarm for alarm in alarms if alarm.sign.acts), None)
    collapse = find_collapse(result.rows, result.diverged is not None)
    lost = halved_at(result.rows)
    kind: Kind = "healthy" if largest_fall(result.rows) <= LARGEST_FALL else "declined"
    return Watched(
        trial=result.trial,
        kind="collapsed" if collapse else kind,
        signs={alarm.sign.name: alarm.iteration for alarm in reversed(alarms)},
        alarm=first.iteration if first else None,
        sign=first.sign.name if first else None,
        lost=collapse.onset if lost is None else lost,
    )


def largest_fall(rows: Sequence[Row]) -> float:
    """Return how far held-out accuracy was at most below its best before, 0 to 1."""
    best = largest = 0.0
    for row in rows:
        if row.get(ACCURACY) is not None:
            best = max(best, row[ACCURACY])
            largest = max(largest, best - row[ACCURACY])
    return largest


def accuracy_at_end(result: Result) -> float:
    """Return the held-out accuracy of the policy that a run ended with.

    Where the guard went back in the last iteration it is that of the copy it went back to. A run that was
    ended for its numbers has none left: 0.
    """
    if result.diverged is not None:
        return 0.0
    known: dict[int, float] = {}
    for row in result.rows:
        at = row["iteration"]
        known[at] = row[ACCURACY] if row.get(ACCURACY) is not None else known.get(at - 1, 0.0)
        target = row.get(ROLLED_BACK_TO)
        if target is not None:
            known[at] = known.get(int(target), 0.0)
    return known[max(known)] if known else 0.0


def rescues(results: Sequence[Result], again: Iterable[Result]) -> list[Rescue]:
    """Compare runs that were done again with rollback with what they were, and with calm ones.

    Args:
        results: of the study.
        again: some of its runs, with the guard at work.
    """
    before = {result.trial: accuracy_at_end(result) for result in results}
    calm: dict[tuple[str, int], float] = {}
    for result in results:
        if not find_collapse(result.rows, result.diverged is not None):
            key = (result.trial.method, result.trial.seed)
            calm[key] = max(calm.get(key, 0.0), before[result.trial])
    return [
        Rescue(
            trial=result.trial,
            calm=calm[result.trial.method, result.trial.seed],
            without=before[result.trial],
            guarded=accuracy_at_end(result),
            rollbacks=sum(row.get(ROLLED_BACK_TO) is not None for row in result.rows),
        )
        for result in again
        if (result.trial.method, result.trial.seed) in calm
    ]
