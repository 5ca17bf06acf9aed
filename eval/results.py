"""Results on disk: ``summary.json``, ``rows.jsonl`` (question, response and verdicts per row), provenance."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data import Example
from eval.benchmark import Benchmark, Failure, ScoredRow
from eval.scoring.summary import summarise
from mm_cpgd.errors import UserError
from rewards import Verdict

SUMMARY, ROWS = "summary.json", "rows.jsonl"


@dataclass(frozen=True)
class EvalResult:
    """Content of a result folder.

    Attributes:
        summary: content of ``summary.json``.
        rows: rows of ``rows.jsonl``, in its order.
    """

    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @property
    def accuracy(self) -> float | None:
        """Overall accuracy by the first protocol, None if no response has a score."""
        accuracy: float | None = self.summary["overall"]["accuracy"]
        return accuracy


def write_result(
    folder: str | Path,
    benchmark: Benchmark,
    rows: Sequence[ScoredRow],
    settings: Mapping[str, Any],
    *,
    flags: Sequence[str] = (),
) -> dict[str, Any]:
    """Write a result, replacing an existing one, and return its summary.

    Args:
        folder: created if it does not exist.
        benchmark: the rows' benchmark.
        rows: all scored rows.
        settings: everything needed to repeat the result; JSON values.
        flags: warnings besides those derived from the rows.

    Raises:
        UserError: the folder cannot be written.
    """
    summary = summarise(benchmark, rows)
    defined = {"benchmark_fingerprint": benchmark.fingerprint} if benchmark.fingerprint else {}
    summary = {**summary, "flags": [*summary["flags"], *flags], "settings": {**settings, **defined}}
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _write(Path(folder) / ROWS, (json.dumps(_record(benchmark, row), ensure_ascii=False) for row in rows))
        # Last, so that a folder with a summary also has its rows.
        _write(Path(folder) / SUMMARY, [json.dumps(summary, ensure_ascii=False, indent=2)])
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; name another folder") from error
    return summary


def _write(path: Path, lines: Iterable[str]) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    # JSON may contain lone surrogates, which UTF-8 cannot encode.
    with partial.open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(f"{line}\n" for line in lines)
    partial.replace(path)


def _record(benchmark: Benchmark, row: ScoredRow) -> dict[str, Any]:
    example, response = row.example, row.response
    return {
        "id": example.id,
        "sample": response.sample,
        **_verdict(row.verdict),
        "question": example.question,
        "answer": example.answer,
        "choices": list(example.choices),
        "response": response.text,
        "extraction": response.extraction,
        "missing": row.missing,
        "failure": _failure(response.failure),
        "groups": {
            name: [str(value) for value in values] for name, values in benchmark.groups(example).items()
        },
        "images": [image.origin for image in example.images],
        **({"videos": [video.origin for video in example.videos]} if example.videos else {}),
        "finished": response.finished,
        "tokens": response.tokens,
        **({"forced": True} if response.forced else {}),
        "protocols": {name: _verdict(verdict) for name, verdict in row.verdicts.items()},
    }


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    return {"status": failure.status.value, "reason": failure.reason} if failure else None


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "extracted": verdict.extracted,
        "score": verdict.score,
        "reason": verdict.reason,
        "status": verdict.status.value,
    }


def read_result(folder: str | Path) -> EvalResult:
    """Read a result folder. Raises ``UserError`` if it is none, or a file in it is damaged."""
    place = Path(folder).expanduser()
    missing = [name for name in (SUMMARY, ROWS) if not (place / name).is_file()]
    if missing:
        inside = sorted(str(found.parent) for found in place.glob(f"*/{SUMMARY}"))
        advice = f"it contains {', '.join(inside)}" if inside else "mm-cpgd score writes one"
        raise UserError(f"{folder} is not a result folder: it has no {missing[0]}; {advice}")
    try:
        summary = json.loads((place / SUMMARY).read_text(encoding="utf-8"))
        lines = (place / ROWS).read_text(encoding="utf-8").split("\n")
        return EvalResult(summary, [json.loads(line) for line in lines if line])
    except ValueError as error:
        raise UserError(f"{folder} is damaged: {error}; score again") from error


# Packages that can change a score; those that generate responses are added by the evaluation.
SCORING_PACKAGES = ("mm-cpgd", "sympy", "rapidfuzz")


def data_fingerprint(examples: Iterable[Example]) -> str:
    """Return a hash of ids, questions, answers and choices as loaded; the order of rows does not matter."""
    lines = sorted(json.dumps([one.id, one.question, one.answer, one.choices]) for one in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def file_fingerprint(path: str | Path) -> str:
    """Return a hash of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).expanduser().open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def package_versions(packages: Sequence[str] = SCORING_PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed; imports none of them."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
