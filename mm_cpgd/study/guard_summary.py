"""What is said of the guard on a study's runs: false alarms, what it noticed, which signs, what it saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from mm_cpgd.guard.signs import SIGNS
from mm_cpgd.study.summary import ShareInterval, share_of
from mm_cpgd.study.watched import Rescue, Watched

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
