"""A result file for each run, written whole or not at all: what a broken-off study goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mm_cpgd.config import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.model import EMBEDDED
from mm_cpgd.study.grid import Stress, Trial
from mm_cpgd.tracking.files import json_line, write_lines

PACKAGE = Path(__file__).resolve().parent.parent
# Rooms whose code decides what a run does; reports, command lines and the study itself do not.
_WATCHED = ("mm_cpgd", "rewards", "data", "eval/heldout.py")
_APART = ("mm_cpgd/study/", "mm_cpgd/report/", "mm_cpgd/cli")


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
