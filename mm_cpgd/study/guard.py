"""Guard on a study's runs: replayed over all of them, and with rollback in reruns of collapsed ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from rich.console import Console

from mm_cpgd.errors import UserError
from mm_cpgd.guard.signals import SIGNALS
from mm_cpgd.guard.watch import ROLLED_BACK_TO, halved_at, replay
from mm_cpgd.study.grid import Trial, config_of
from mm_cpgd.study.results import ACCURACY, LARGEST_FALL, NEAR, Row, StudyRun, find_collapse, read_run
from mm_cpgd.study.run import GUARD_FILE, raise_if_failed, read_study, run_missing
from mm_cpgd.study.summary import share_of
from mm_cpgd.tracking.files import finite, write_lines

RERUN_FOLDER = "guarded"
"""Folder in the study's folder: reruns of collapsed runs with rollback."""
ROLLBACK = "guard.action=rollback"


def report_guard(folder: Path, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """Write ``guard.json`` from the existing results, including the reruns in ``guarded/``; return it.

    Args:
        folder: folder of the study.
        seeds: seeds whose runs count; None: all.

    Raises:
        UserError: the folder holds no study, or no finished run of the seeds.
    """
    grid, runs = read_study(folder)
    runs = [run for run in runs if seeds is None or run.trial.seed in seeds]
    if not runs:
        raise UserError(
            f"{folder} has no finished runs yet; mm-cpgd study stability --output {folder} starts them"
        )
    reruns = [read_run(folder / RERUN_FOLDER, run.trial) for run in runs]
    completions = config_of(runs[0].trial, folder, grid.changes).rollout.completions
    summary = summarise_guard(
        [replay_guard(run, completions) for run in runs],
        rescues(runs, [rerun for rerun in reruns if rerun]),
    )
    summary["seeds"] = sorted({run.trial.seed for run in runs})
    write_lines(folder / GUARD_FILE, [json.dumps(finite(summary), indent=1, allow_nan=False)])
    return summary


def run_guarded(
    folder: Path, seeds: Sequence[int] | None, changes: Sequence[str], jobs: int, console: Console
) -> None:
    """Rerun the study's collapsed runs with ``guard.action=rollback``, skipping existing reruns.

    Args:
        folder: folder of the study.
        seeds: seeds to rerun; None: all.
        changes: config overrides on top of the study's, for instance ``guard.step_factor=0.5``.
        jobs: number of processes.
        console: console for progress.

    Raises:
        UserError: the folder holds no study, or a change is not valid.
        RunEnded: interrupted by Ctrl-C, or runs failed repeatedly.
    """
    grid, runs = read_study(folder)
    trials = [run.trial for run in runs if (seeds is None or run.trial.seed in seeds) and _has_collapsed(run)]
    raise_if_failed(
        run_missing(trials, folder / RERUN_FOLDER, (*grid.changes, ROLLBACK, *changes), jobs, console)
    )


def _has_collapsed(run: StudyRun) -> bool:
    return bool(find_collapse(run.rows, run.diverged is not None))


Kind = Literal["healthy", "declined", "collapsed"]


@dataclass(frozen=True)
class GuardReplay:
    """Replay of the guard over a run of the study.

    Attributes:
        trial: trial of the run.
        kind: ``collapsed`` by the study's definition; ``healthy`` if it never fell far below its best;
            ``declined`` in between.
        signals: names of all signals that appeared, with the iteration of their first alarm.
        alarm: iteration of the first alarm that triggers rollback or stop.
        signal: name of its signal.
        lost: the first evaluation below half the best before it; for a run that lost only its format, or
            ended with numbers that were not finite, the onset of its collapse.
    """

    trial: Trial
    kind: Kind
    signals: Mapping[str, int]
    alarm: int | None
    signal: str | None
    lost: int | None

    @property
    def lead(self) -> int | None:
        """Iterations from the alarm to the loss of accuracy; None if either is absent."""
        return None if self.alarm is None or self.lost is None else self.lost - self.alarm


@dataclass(frozen=True)
class Rescue:
    """Rerun of a collapsed run with rollback; its fields are keys of ``guard.json``.

    Attributes:
        trial: trial of the run.
        calm: final held-out accuracy of the best run of the same objective and seed that did not collapse.
        without: final accuracy without the guard.
        guarded: accuracy of the policy at the end of the rerun.
        rollbacks: number of rollbacks.
    """

    trial: Trial
    calm: float
    without: float
    guarded: float
    rollbacks: int

    @property
    def is_rescued(self) -> bool:
        """Whether it ended near the best run without a collapse."""
        return self.guarded >= self.calm - NEAR


def replay_guard(run: StudyRun, completions: int) -> GuardReplay:
    """Replay the guard over a run.

    Args:
        run: a run of the study.
        completions: G, completions per prompt.
    """
    alarms = list(replay(run.rows, completions=completions))
    first = next((alarm for alarm in alarms if alarm.signal.actionable), None)
    collapse = find_collapse(run.rows, run.diverged is not None)
    lost = halved_at(run.rows)
    kind: Kind = "healthy" if largest_fall(run.rows) <= LARGEST_FALL else "declined"
    return GuardReplay(
        trial=run.trial,
        kind="collapsed" if collapse else kind,
        signals={alarm.signal.name: alarm.iteration for alarm in reversed(alarms)},
        alarm=first.iteration if first else None,
        signal=first.signal.name if first else None,
        lost=collapse.onset if lost is None else lost,
    )


def largest_fall(rows: Sequence[Row]) -> float:
    """Return the largest distance of held-out accuracy below its best before, 0 to 1."""
    best = largest = 0.0
    for row in rows:
        if row.get(ACCURACY) is not None:
            best = max(best, row[ACCURACY])
            largest = max(largest, best - row[ACCURACY])
    return largest


def accuracy_at_end(run: StudyRun) -> float:
    """Return the held-out accuracy of the policy at the end of a run.

    After a rollback in the last iteration it is the accuracy of the restored snapshot. A run that diverged
    has no usable policy: 0.
    """
    if run.diverged is not None:
        return 0.0
    known: dict[int, float] = {}
    for row in run.rows:
        at = row["iteration"]
        known[at] = row[ACCURACY] if row.get(ACCURACY) is not None else known.get(at - 1, 0.0)
        target = row.get(ROLLED_BACK_TO)
        if target is not None:
            known[at] = known.get(int(target), 0.0)
    return known[max(known)] if known else 0.0


def rescues(runs: Sequence[StudyRun], reruns: Iterable[StudyRun]) -> list[Rescue]:
    """Compare reruns with rollback with the original runs, and with runs that did not collapse.

    Args:
        runs: runs of the study.
        reruns: reruns of some of them with rollback; without a run to compare with, one is left out.
    """
    before = {run.trial: accuracy_at_end(run) for run in runs}
    calm: dict[tuple[str, int], float] = {}
    for run in runs:
        if not _has_collapsed(run):
            key = (run.trial.method, run.trial.seed)
            calm[key] = max(calm.get(key, 0.0), before[run.trial])
    return [
        Rescue(
            trial=rerun.trial,
            calm=calm[rerun.trial.method, rerun.trial.seed],
            without=before[rerun.trial],
            guarded=accuracy_at_end(rerun),
            rollbacks=sum(row.get(ROLLED_BACK_TO) is not None for row in rerun.rows),
        )
        for rerun in reruns
        if (rerun.trial.method, rerun.trial.seed) in calm
    ]


_MEANS = ("without", "guarded", "calm", "rollbacks")


def summarise_guard(runs: Sequence[GuardReplay], rescued: Sequence[Rescue]) -> dict[str, Any]:
    """Return the summary of the guard.

    Keys: ``false_alarms`` (healthy runs with an alarm), ``declined`` (declined ones), ``noticed`` (collapsing
    runs with an alarm before the loss) and ``rescued``, each with ``count``, ``total``, ``rate``,
    ``interval``; ``lead`` (``median`` iterations between alarm and loss, ``least`` and ``most``); ``signs``
    (see ``_by_signal``); ``rescues`` (one entry per run), ``rescues_by_stress`` (``rescued`` of ``total``,
    means of the others); ``report_guard`` adds ``seeds``.
    """
    kinds = {kind: [run for run in runs if run.kind == kind] for kind in ("healthy", "declined", "collapsed")}
    alarms = {kind: sum(run.alarm is not None for run in own) for kind, own in kinds.items()}
    leads = [run.lead for run in kinds["collapsed"] if run.lead is not None and run.lead > 0]
    saved = sum(one.is_rescued for one in rescued)
    return {
        "false_alarms": share_of(alarms["healthy"], len(kinds["healthy"])),
        "declined": share_of(alarms["declined"], len(kinds["declined"])),
        "noticed": share_of(len(leads), len(kinds["collapsed"])),
        "lead": {"median": median(leads), "least": min(leads), "most": max(leads)} if leads else None,
        "signs": _by_signal(kinds["collapsed"], kinds["healthy"]),
        "rescued": share_of(saved, len(rescued)),
        "rescues_by_stress": _by_stress(rescued),
        "rescues": [asdict(one) | {"trial": one.trial.name, "rescued": one.is_rescued} for one in rescued],
    }


def _by_signal(collapsed: Sequence[GuardReplay], healthy: Sequence[GuardReplay]) -> list[dict[str, Any]]:
    """Return how well each signal predicts a collapse, the best first.

    Keys: ``name``; ``acts``, whether it is actionable; ``before``, collapsing runs where it came before the
    loss; ``first``, those in which no actionable signal came earlier; ``lead``, median iterations before;
    ``healthy`` runs that show it.
    """
    found = []
    for signal in SIGNALS:
        name = signal.name
        shown = [run for run in collapsed if name in run.signals]
        leads = [run.lost - run.signals[name] for run in shown if run.lost is not None]
        before = [lead for lead in leads if lead > 0]
        found.append(
            {
                "name": name,
                "acts": signal.actionable,
                "before": len(before),
                "first": sum(run.signal == name for run in collapsed),
                "lead": median(before) if before else None,
                "healthy": sum(name in run.signals for run in healthy),
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
            **{key: fmean(getattr(one, key) for one in own) for key in _MEANS},
        }
        for label, own in by_stress.items()
    }
