"""Guard on a study's runs: replayed over all of them, and active in those that collapsed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from rich.console import Console

from mm_cpgd.errors import UserError
from mm_cpgd.guard.signs import SIGNS
from mm_cpgd.guard.watch import ROLLED_BACK_TO, halved_at, replay
from mm_cpgd.study.grid import Trial, config_of
from mm_cpgd.study.results import ACCURACY, LARGEST_FALL, NEAR, Result, Row, find_collapse, read_result
from mm_cpgd.study.run import GUARD, complete, read_study, tell_failed
from mm_cpgd.study.summary import ShareInterval, share_of
from mm_cpgd.tracking.files import finite, write_lines
from mm_cpgd.training.run import EvaluatorFactory

FOLDER = "guarded"
"""In the study's folder: the runs that are done again with rollback."""
ROLLBACK = "guard.action=rollback"


def report_guard(folder: Path, interval: ShareInterval, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """Write ``guard.json`` from the results that are there, the guarded ones in ``guarded/`` too; return it.

    Args:
        folder: of the study.
        interval: of a share.
        seeds: only their runs count; None: all.

    Raises:
        UserError: there is no study.
    """
    grid, results = read_study(folder)
    results = [result for result in results if seeds is None or result.trial.seed in seeds]
    if not results:
        raise UserError(
            f"{folder} has no finished runs yet; mm-cpgd study stability --output {folder} makes them"
        )
    again = [read_result(folder / FOLDER, result.trial) for result in results]
    completions = config_of(results[0].trial, folder, grid.changes).rollout.completions
    summary = summarise_guard(
        [watched(result, completions) for result in results],
        rescues(results, [result for result in again if result]),
        interval,
    )
    summary["seeds"] = sorted({result.trial.seed for result in results})
    write_lines(folder / GUARD, [json.dumps(finite(summary), indent=1, allow_nan=False)])
    return summary


def run_guarded(
    folder: Path,
    seeds: Sequence[int] | None,
    changes: Sequence[str],
    jobs: int,
    make_evaluator: EvaluatorFactory,
    console: Console,
) -> None:
    """Do the study's collapsed runs again with ``guard.action=rollback``; go on where that was broken off.

    Args:
        folder: of the study.
        seeds: only these; None: all.
        changes: config overrides over the study's, for instance ``guard.step_factor=0.5``.
        jobs: processes.
        make_evaluator: held-out evaluation.
        console: for progress.

    Raises:
        UserError: there is no study, or a change is not possible.
        RunEnded: Ctrl-C, or runs failed again and again.
    """
    grid, results = read_study(folder)
    trials = [
        result.trial
        for result in results
        if (seeds is None or result.trial.seed in seeds)
        and find_collapse(result.rows, result.diverged is not None)
    ]
    tell_failed(
        complete(trials, folder / FOLDER, (*grid.changes, ROLLBACK, *changes), jobs, make_evaluator, console)
    )


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


_MEANS = ("without", "guarded", "calm", "rollbacks")


def summarise_guard(
    runs: Sequence[Watched], rescued: Sequence[Rescue], interval: ShareInterval
) -> dict[str, Any]:
    """Return what is said of the guard.

    Keys: ``false_alarms`` (of healthy runs), ``declined``, ``noticed`` (collapsing runs with an alarm before
    the loss) and ``rescued``, each with ``count``, ``total``, ``rate``, ``interval``; ``lead`` (median
    iterations between alarm and loss, ``least`` and ``most``); ``signs`` (see ``_by_sign``);
    ``rescues`` (one entry a run), ``rescues_by_stress`` (``rescued`` of ``total``, means of the others);
    ``report_guard`` adds ``seeds``.
    """
    kinds = {kind: [run for run in runs if run.kind == kind] for kind in ("healthy", "declined", "collapsed")}
    alarms = {kind: sum(run.alarm is not None for run in own) for kind, own in kinds.items()}
    leads = [run.lead for run in kinds["collapsed"] if run.lead is not None and run.lead > 0]
    saved = sum(one.is_rescued for one in rescued)
    return {
        "false_alarms": share_of(alarms["healthy"], len(kinds["healthy"]), interval),
        "declined": share_of(alarms["declined"], len(kinds["declined"]), interval),
        "noticed": share_of(len(leads), len(kinds["collapsed"]), interval),
        "lead": {"median": median(leads), "least": min(leads), "most": max(leads)} if leads else None,
        "signs": _by_sign(kinds["collapsed"], kinds["healthy"]),
        "rescued": share_of(saved, len(rescued), interval),
        "rescues_by_stress": _by_stress(rescued),
        "rescues": [asdict(one) | {"trial": one.trial.name, "rescued": one.is_rescued} for one in rescued],
    }


def _by_sign(collapsed: Sequence[Watched], healthy: Sequence[Watched]) -> list[dict[str, Any]]:
    """Say of each sign how well it foretells, the best first.

    Keys: ``name``; ``acts``; ``before``, collapsing runs where it came before the loss; ``first``, those in
    which no sign that acts came earlier; ``lead``, median iterations before; ``healthy`` runs that show it.
    """
    found = []
    for sign in SIGNS:
        name = sign.name
        shown = [run for run in collapsed if name in run.signs]
        leads = [run.lost - run.signs[name] for run in shown if run.lost is not None]
        before = [lead for lead in leads if lead > 0]
        found.append(
            {
                "name": name,
                "acts": sign.acts,
                "before": len(before),
                "first": sum(run.sign == name for run in collapsed),
                "lead": median(before) if before else None,
                "healthy": sum(name in run.signs for run in healthy),
            }
        )
    return sorted(found, key=lambda one: -one["before"])


def _by_stress(rescued: Sequence[Rescue]) -> dict[str, Any]:
    by_stress: dict[str, list[Rescue]] = {}
    for one in sorted(rescued, key=lambda one: (one.trial.stress.updates, one.trial.stress.rate)):
        by_stress.setdefault(one.trial.stress.label, []).append(one)
    return {
        label: {
            "rescued": sum(one.is_rescued for one in own),
            "total": len(own),
            **{
                key: fmean(getattr(one, key) for one in own)
                for key in ("without", "guarded", "calm", "rollbacks")
            },
        }
        for label, own in by_stress.items()
    }
