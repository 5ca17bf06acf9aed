"""Result files of a study: what became of each run, written whole or not at all, so it can be resumed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.model import EMBEDDED
from mm_cpgd.study.grid import Stress, Trial
from mm_cpgd.tracking.files import json_line, write_lines

PACKAGE = Path(__file__).resolve().parent.parent
# Packages whose code decides what a run does; reports, command lines and the study itself do not.
_WATCHED = ("mm_cpgd", "rewards", "data")
_APART = ("mm_cpgd/study/", "mm_cpgd/report/", "mm_cpgd/cli/")


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        trial: which.
        key: of its settings and versions, see ``key_of``.
        code: fingerprint of the code that ran it.
        diverged: why it ended before its time; None if it did not.
        iterations: that were planned.
        seconds: of wall clock.
        cpu_seconds: of its process.
        rows: of ``metrics.jsonl``.
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
    """Return 12 digits that change with any setting, the starting weights and the libraries' versions."""
    settings = config.model_dump(mode="json", exclude={"output", "name"})
    content = json.dumps([settings, versions(), _weights(config.policy.model)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


@cache
def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    return {name: version(name) for name in ("mm-cpgd", "torch", "transformers")}


@cache
def code_fingerprint() -> str:
    """Return 12 digits of the code that decides what a run does.

    It is no part of the key, for a changed comment need not cost a night; the page says where runs of
    several fingerprints are mixed.
    """
    root, digest = PACKAGE.parent, hashlib.sha256()
    files = [path for room in _WATCHED for path in _sources(root / room)]
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        if not name.startswith(_APART):
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _sources(place: Path) -> Iterable[Path]:
    return [place] if place.is_file() else [*place.rglob("*.py"), *place.rglob("recipes/*.yaml")]


@cache
def _weights(model: str) -> str:
    """Return a fingerprint of a local model's weights; what is not local goes by its name."""
    folder = EMBEDDED.get(model, Path(model))
    digest = hashlib.sha256(model.encode())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_result(folder: Path, result: Result) -> None:
    """Write a run's file, or leave what was there."""
    write_lines(result_file(folder, result.trial), [json_line(asdict(result))])


def result_file(folder: Path, trial: Trial) -> Path:
    """Return where a run's result is or would be."""
    return folder / "runs" / f"{trial.name}.json"


def read_result(folder: Path, trial: Trial) -> Result | None:
    """Return a run's result, None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = result_file(folder, trial)
    if not file.is_file():
        return None
    try:
        return _result(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is no result of a run ({error!r}); remove it, and it will be run again"
        ) from None


def _result(values: Mapping[str, Any]) -> Result:
    trial = values["trial"]
    return Result(**{**values, "trial": Trial(trial["method"], Stress(**trial["stress"]), trial["seed"])})


Row = Mapping[str, Any]
ACCURACY, FORMAT = "eval/accuracy", "eval/format"
HALF = 0.5
"""Below this share of the best held-out accuracy so far a run has lost what it had."""
FEWEST_WELL_FORMED = 0.5
"""Below this share of held-out answers in the asked format a run has lost the format."""
LARGEST_FALL = 0.10
"""A healthy run never falls further below its best held-out accuracy than this."""
NEAR = 0.05
"""A rescued run ends at most this far below the best calm run of its objective and seed."""


@dataclass(frozen=True)
class Collapse:
    """Why a run counts as collapsed.

    Attributes:
        reasons: any of ``accuracy``, ``format``, ``not finite``; none: it did not collapse.
        onset: iteration of the evaluation from which on it was so; None without a collapse.
    """

    reasons: tuple[str, ...] = ()
    onset: int | None = None

    def __bool__(self) -> bool:
        return bool(self.reasons)


def find_collapse(rows: Sequence[Row], diverged: bool) -> Collapse:
    """Judge a run by its held-out evaluations, the one before training included.

    It collapsed if at least one of these holds:

    - *accuracy*: at the last evaluation the accuracy is below half of the best so far,
    - *format*: at the last evaluation fewer than half of the answers have the asked format,
    - *not finite*: steps were not finite so often that the run ended, or an evaluation gave no number.

    What falls and comes back by the end is no collapse. The onset is the first evaluation of the unbroken
    stretch, up to the end, in which the reason held.

    Args:
        rows: of ``metrics.jsonl``.
        diverged: whether the run was ended because steps were not finite.
    """
    evaluations = [row for row in rows if ACCURACY in row]
    lost_accuracy, lost_format, best = [], [], 0.0
    for row in evaluations:
        accuracy, well_formed = _number(row, ACCURACY), _number(row, FORMAT)
        best = max(best, accuracy)
        lost_accuracy.append(accuracy < HALF * best)
        lost_format.append(well_formed < FEWEST_WELL_FORMED)
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
    """Return where the unbroken stretch of losses at the end begins; None if there is none."""
    onset = None
    for is_lost, iteration in zip(reversed(lost), reversed(iterations), strict=True):
        if not is_lost:
            break
        onset = iteration
    return onset


@dataclass(frozen=True)
class Outcome:
    """A run in numbers.

    Attributes:
        collapse: see ``find_collapse``.
        start: held-out accuracy before training.
        final: at the end; 0 for a run that ended because it was not finite.
        best: highest held-out accuracy.
        area: mean height of the accuracy curve over the iterations (trapezoids), 0 to 1.
        well_formed: share of held-out answers in the asked format at the end.
        drift: largest policy drift of an iteration, nats a token.
        clip_fraction: mean over the iterations.
        entropy: of the last iteration, nats.
        ratio_max: largest ratio of all tokens and steps.
        ratio_min: smallest.
        grad_norm: largest gradient norm before clipping.
        sampled_tokens: for training.
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
    """Sum a run up.

    Args:
        rows: of ``metrics.jsonl``.
        diverged: whether it was ended because steps were not finite; from then on its accuracy counts as 0.
        iterations: that were planned.
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
    """Return the finite values of a metric; what was not finite is null in the rows."""
    return [float(row[key]) for row in rows if row.get(key) is not None]


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    return 0.0 if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
