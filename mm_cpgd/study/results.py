"""Stored runs of a study, their outcome in numbers, and the definition of a collapse."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.model import EMBEDDED
from mm_cpgd.study.grid import Stress, Trial
from mm_cpgd.tracking.files import json_line, write_lines

# Packages that training imports: their code determines a run's numbers. Subpackages that only plan, start or
# report runs do not.
_TRAINING_PACKAGES = ("mm_cpgd", "rewards", "data")
_OTHER_PACKAGES = ("mm_cpgd.study", "mm_cpgd.report", "mm_cpgd.cli", "mm_cpgd.preflight")


@dataclass(frozen=True)
class StudyRun:
    """A finished run; its fields are the keys of its result file.

    Attributes:
        trial: the trial that was run.
        key: key of its settings and versions, see ``key_of``.
        code: fingerprint of the code that ran it, see ``code_fingerprint``.
        diverged: why it ended early; None if it did not.
        iterations: planned iterations.
        seconds: wall-clock time.
        cpu_seconds: CPU time of its process.
        rows: rows of its ``metrics.jsonl``.
    """

    trial: Trial
    key: str
    code: str
    diverged: str | None
    iterations: int
    seconds: float
    cpu_seconds: float
    rows: list[dict[str, Any]]


def key_of(config: RunConfig) -> str:
    """Return a hash of 12 digits of all settings, the starting weights and the versions of libraries."""
    settings = config.model_dump(mode="json", exclude={"output", "name"})
    content = json.dumps([settings, versions(), _weights(config.policy.model)], sort_keys=True)
    content = content.replace(json.dumps(str(Path(__file__).resolve().parent))[1:-1], "")  # of its own rules
    return hashlib.sha256(content.encode()).hexdigest()[:12]


@cache
def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    return {name: version(name) for name in ("mm-cpgd", "torch", "transformers")}


@cache
def code_fingerprint() -> str:
    """Return a hash of 12 digits of the code that determines a run's numbers.

    It is not part of the key, because a changed comment must not invalidate hours of runs; the page says when
    runs with several fingerprints are mixed.
    """
    digest = hashlib.sha256()
    others = [_folder(package) for package in _OTHER_PACKAGES]
    for package in _TRAINING_PACKAGES:
        folder = _folder(package)
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("recipes/*.yaml")]):
            if not any(path.is_relative_to(other) for other in others):
                name = path.relative_to(folder.parent).as_posix()
                digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve().parent


@cache
def _weights(model: str) -> str:
    """Return a hash of a local model's weights; a model that is not local is identified by its name."""
    folder = EMBEDDED.get(model, Path(model))
    digest = hashlib.sha256(model.encode())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_run(folder: Path, run: StudyRun) -> None:
    """Write a run's file, complete or not at all."""
    write_lines(run_file(folder, run.trial), [json_line(asdict(run))])


def run_file(folder: Path, trial: Trial) -> Path:
    """Return the file of a trial's run, whether it exists or not."""
    return folder / "runs" / f"{trial.name}.json"


def read_run(folder: Path, trial: Trial) -> StudyRun | None:
    """Return the stored run of a trial, None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = run_file(folder, trial)
    if not file.is_file():
        return None
    try:
        return _run_from(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is not the result of a run ({error!r}); remove it, and the run is repeated"
        ) from None


def _run_from(values: Mapping[str, Any]) -> StudyRun:
    trial = values["trial"]
    return StudyRun(**{**values, "trial": Trial(trial["method"], Stress(**trial["stress"]), trial["seed"])})


Row = Mapping[str, Any]
ACCURACY, FORMAT = "eval/accuracy", "eval/format"
HALF = 0.5
"""Below this share of the best held-out accuracy so far a run has lost its accuracy."""
MIN_WELL_FORMED = 0.5
"""Below this share of held-out completions in the required format a run has lost the format."""
LARGEST_FALL = 0.10
"""The held-out accuracy of a healthy run is never further below its best so far."""
NEAR = 0.05
"""A rescued run ends at most this far below the best run of its objective and seed without a collapse."""


@dataclass(frozen=True)
class Collapse:
    """Collapse of a run; false if it did not collapse.

    Attributes:
        reasons: any of ``accuracy``, ``format``, ``not finite``; empty: no collapse.
        onset: iteration of the evaluation from which on a reason held to the end; None without a collapse.
    """

    reasons: tuple[str, ...] = ()
    onset: int | None = None

    def __bool__(self) -> bool:
        return bool(self.reasons)


def find_collapse(rows: Sequence[Row], diverged: bool) -> Collapse:
    """Decide whether a run collapsed, by its held-out evaluations, including the one before training.

    It collapsed if at least one of these holds:

    - *accuracy*: at the last evaluation the accuracy is below half of the best so far,
    - *format*: at the last evaluation fewer than half of the completions have the required format,
    - *not finite*: steps were not finite so often that the run ended, or an evaluation returned no number.

    A fall that recovers by the end is not a collapse. The onset is the first evaluation of the unbroken
    stretch, up to the end, in which the reason held.

    Args:
        rows: rows of ``metrics.jsonl``.
        diverged: whether the run was ended because steps were not finite.
    """
    evaluations = [row for row in rows if ACCURACY in row]
    lost_accuracy, lost_format, best = [], [], 0.0
    for row in evaluations:
        accuracy, well_formed = _number(row, ACCURACY), _number(row, FORMAT)
        best = max(best, accuracy)
        lost_accuracy.append(accuracy < HALF * best)
        lost_format.append(well_formed < MIN_WELL_FORMED)
    broken = [row[ACCURACY] is None for row in evaluations]
    iterations = [row["iteration"] for row in evaluations]
    last = max((row["iteration"] for row in rows), default=0)
    found = {
        "accuracy": _since(lost_accuracy, iterations),
        "format": _since(lost_format, iterations),
        "not finite": last if diverged else _since(broken, iterations),
    }
    onsets = {reason: onset for reason, onset in found.items() if onset is not None}
    return Collapse(tuple(onsets), min(onsets.values())) if onsets else Collapse()


def _since(lost: Sequence[bool], iterations: Sequence[int]) -> int | None:
    """Return the iteration at which the unbroken stretch of losses at the end begins; None without one."""
    onset = None
    for is_lost, iteration in zip(reversed(lost), reversed(iterations), strict=True):
        if not is_lost:
            break
        onset = iteration
    return onset


@dataclass(frozen=True)
class Outcome:
    """Summary of a run in numbers.

    Attributes:
        collapse: see ``find_collapse``.
        start: held-out accuracy before training.
        final: held-out accuracy at the end; 0 for a run that ended because it was not finite.
        best: highest held-out accuracy.
        area: mean height of the accuracy curve over the iterations (trapezoids), 0 to 1.
        well_formed: share of held-out completions in the required format at the end.
        drift: largest policy drift of an iteration, nats per token.
        clip_fraction: mean clip fraction over the iterations.
        entropy: entropy of the last iteration, nats.
        ratio_max: largest ratio of all tokens and steps.
        ratio_min: smallest ratio of all tokens and steps.
        grad_norm: largest gradient norm before clipping.
        sampled_tokens: tokens sampled for training.
    """

    collapse: Collapse
    start: float
    final: float
    best: float
    area: float
    well_formed: float
    drift: float
    clip_fraction: float
    entropy: float
    ratio_max: float
    ratio_min: float
    grad_norm: float
    sampled_tokens: float


def outcome_of(rows: Sequence[Row], diverged: bool, iterations: int) -> Outcome:
    """Summarise a run.

    Args:
        rows: rows of ``metrics.jsonl``.
        diverged: whether it was ended because steps were not finite; from then on its accuracy counts as 0.
        iterations: planned iterations.
    """
    curve = [(row["iteration"], _number(row, ACCURACY)) for row in rows if ACCURACY in row]
    if diverged:
        curve += [(rows[-1]["iteration"] + 1, 0.0), (iterations, 0.0)] if rows else [(iterations, 0.0)]
    evaluations = [row for row in rows if FORMAT in row]
    return Outcome(
        collapse=find_collapse(rows, diverged),
        start=curve[0][1] if curve else 0.0,
        final=curve[-1][1] if curve else 0.0,
        best=max((accuracy for _, accuracy in curve), default=0.0),
        area=area_under(curve),
        well_formed=0.0 if diverged or not evaluations else _number(evaluations[-1], FORMAT),
        drift=max(_values(rows, "policy/drift"), default=math.nan),
        clip_fraction=_mean(_values(rows, "policy/clip_fraction")),
        entropy=next(reversed(_values(rows, "policy/entropy")), math.nan),
        ratio_max=max(_values(rows, "policy/ratio_max"), default=math.nan),
        ratio_min=min(_values(rows, "policy/ratio_min"), default=math.nan),
        grad_norm=max(_values(rows, "optimizer/grad_norm"), default=math.nan),
        sampled_tokens=sum(_values(rows, "tokens/sampled")),
    )


def area_under(curve: Sequence[tuple[float, float]]) -> float:
    """Return the mean height of a curve of (x, y) points with rising x, by trapezoids."""
    if len(curve) < 2 or curve[-1][0] <= curve[0][0]:
        return curve[-1][1] if curve else 0.0
    total = sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(curve))
    return total / (curve[-1][0] - curve[0][0])


def _values(rows: Sequence[Row], key: str) -> list[float]:
    """Return the finite values of a metric; values that were not finite are null in the rows."""
    return [float(row[key]) for row in rows if row.get(key) is not None]


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    return 0.0 if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
