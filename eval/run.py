"""Evaluation from start to end: rows, questions, answers, scores, controls, what is stored."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data import DataError, Example
from eval.benchmark import Benchmark, DataSource, ScoredRow
from eval.benchmarks import find_benchmark
from eval.controls import CONTROLS, checked_controls, drop
from eval.generate.cache import AnswerCache, digest
from eval.generate.generate import Answers, Decoding, Generator, Question, answer, check_samples, questions_of
from eval.results import (
    SCORING_PACKAGES,
    SUMMARY,
    data_fingerprint,
    package_versions,
    read_result,
    write_result,
)
from eval.scoring.score import checked_protocols, score
from eval.settings import Settings
from mm_cpgd.errors import UserError
from rewards.registry import nearest

PACKAGES = (*SCORING_PACKAGES, "torch", "transformers", "pillow", "torchvision", "peft", "requests")
# In the settings as they were asked for; None is the processor's own limit.
_LIMITS = ("min_pixels", "max_pixels")
ENGINES = ("local", "vllm")
DTYPES = ("auto", "float32", "bfloat16")
Report = Callable[[int, int], None]


@contextmanager
def silent(title: str) -> Iterator[Report]:
    """Show nothing of what ``title`` names."""
    yield lambda done, total: None


@dataclass(frozen=True)
class Evaluation:
    """One benchmark, ready to be asked: everything that a person can mistake has been checked.

    Attributes:
        settings: what was asked for.
        benchmark: found and loaded.
        examples: its rows.
        decoding: how answers are drawn.
        system_prompt: the benchmark's, or another one.
    """

    settings: Settings
    benchmark: Benchmark
    examples: Sequence[Example]
    decoding: Decoding
    system_prompt: str | None

    @property
    def parts(self) -> list[str | None]:
        """None for the benchmark itself, then its controls."""
        return [None, *self.settings.controls]

    def folder(self, output: Path, control: str | None = None) -> Path:
        """Return where the result goes, controls beside it."""
        return output / (f"{self.benchmark.name}-{control}" if control else self.benchmark.name)


def prepare(settings: Settings) -> Evaluation:
    """Check the settings and read the rows; of the images nothing is opened.

    Raises:
        UserError, DataError: something in the settings or the data cannot be used.
    """
    benchmark = find_benchmark(settings.benchmark)
    decoding = Decoding(
        settings.max_new_tokens or benchmark.max_new_tokens,
        settings.temperature,
        settings.top_p,
        settings.seed,
    )
    check_samples(settings.samples, decoding)
    protocols, controls = checked_protocols(settings.protocols), checked_controls(settings.controls)
    if "judge" in protocols:
        raise UserError(
            "mm-cpgd eval asks no judge; evaluate by official and verifier, then give the rows.jsonl of the "
            "result to mm-cpgd score --protocol judge --predictions"
        )
    _check(settings)
    examples = benchmark.load(DataSource(settings.data, settings.split, settings.limit))
    if not examples:
        raise DataError(f"{settings.benchmark} has no rows in {settings.data or 'the hub'}; check --split")
    if controls and not any(one.images for one in examples):
        raise DataError(f"no row of {benchmark.name} has an image; leave --control out")
    prompt = settings.system_prompt if settings.system_prompt is not None else benchmark.system_prompt
    settings = replace(settings, protocols=tuple(protocols), controls=tuple(controls))
    return Evaluation(settings, benchmark, examples, decoding, prompt or None)


def _check(settings: Settings) -> None:
    least, most = settings.min_pixels, settings.max_pixels
    if settings.limit is not None and settings.limit < 1:
        raise UserError(f"--limit {settings.limit} must be at least 1")
    if settings.dtype not in DTYPES:
        raise UserError(f"there is no --dtype {settings.dtype!r}: {nearest(settings.dtype, DTYPES)}")
    if settings.endpoint is None and settings.engine not in ENGINES:
        raise UserError(f"there is no --engine {settings.engine!r}: {nearest(settings.engine, ENGINES)}")
    if least is not None and most is not None and least > most:
        raise UserError(f"--min-pixels {least:,} must not be above --max-pixels {most:,}")


def evaluate(
    evaluation: Evaluation,
    generator: Generator,
    folder: Path,
    *,
    control: str | None = None,
    original: Path | None = None,
    cache: AnswerCache | None = None,
    showing: Callable[[str], AbstractContextManager[Report]] = silent,
    command: str | None = None,
) -> dict[str, Any]:
    """Answer, score and store one benchmark, or one control of it; return the summary.

    Args:
        evaluation: from ``prepare``.
        generator: answers.
        folder: of the result.
        control: of ``CONTROLS``, None for the images as they are.
        original: with a control, the folder of the result that it is held against.
        cache: of answers.
        showing: gives, for a title, what is told (done, all) while that lasts.
        command: as typed, to be stored.

    Raises:
        UserError, DataError: as ``answer``, ``score`` and ``write_result``.
    """
    settings, benchmark, examples = evaluation.settings, evaluation.benchmark, evaluation.examples
    if control is not None:
        examples = CONTROLS[control](examples, settings.seed)
    questions = list(questions_of(benchmark, examples, evaluation.system_prompt))
    started = time.monotonic()
    with showing(f"answering {folder.name}") as report:
        answers = answer(
            questions, generator, evaluation.decoding, samples=settings.samples, cache=cache, progress=report
        )
    seconds = time.monotonic() - started
    with showing(f"scoring {folder.name}") as report:
        rows = score(benchmark, examples, answers.responses, settings.protocols, progress=report)
    stored = {
        **_asked(evaluation, generator),
        "control": control,
        "command": command,
        "data_fingerprint": data_fingerprint(examples),
        "images_fingerprint": answers.images,
        **_prompts(questions),
        "packages": package_versions(PACKAGES),
        "generation": _generation(answers, seconds),
    }
    summary = write_result(
        folder, benchmark, _with_reasons(rows, answers), stored, flags=_flags(answers, cache)
    )
    if control is not None and original is not None:
        summary = _with_drop(folder, summary, original)
    return summary


def _asked(evaluation: Evaluation, generator: Generator) -> dict[str, Any]:
    """Return the settings with what was left open in them filled in, as it was used."""
    used = {name: generator.identity[name] for name in generator.identity if name not in _LIMITS}
    return {
        **evaluation.settings.stored(),
        **used,
        "max_new_tokens": evaluation.decoding.max_new_tokens,
        "system_prompt": evaluation.system_prompt or "",
    }


def _prompts(questions: Sequence[Question]) -> dict[str, Any]:
    """Return a hash of all prompts, and the first one, which shows how they are written."""
    texts = [[one.id, one.system_prompt, one.text] for one in questions]
    return {"prompts_fingerprint": digest(texts)[:16], "first_prompt": questions[0].text}


def _generation(answers: Answers, seconds: float) -> dict[str, Any]:
    tokens = [one.tokens for one in answers.responses if one.tokens is not None]
    return {
        "answers": len(answers.responses),
        "from_cache": answers.cached,
        "failed": len(answers.failures),
        "seconds": round(seconds, 3),
        "tokens": sum(tokens),
    }


def _with_reasons(rows: Sequence[ScoredRow], answers: Answers) -> list[ScoredRow]:
    """Say of questions that were not answered why."""
    return [_with_reason(row, answers.failures.get((row.example.id, row.response.sample))) for row in rows]


def _with_reason(row: ScoredRow, reason: str | None) -> ScoredRow:
    if reason is None:
        return row
    said = {
        name: replace(verdict, reason=f"could not be asked: {reason}")
        for name, verdict in row.verdicts.items()
    }
    return replace(row, verdicts=said)


def _flags(answers: Answers, cache: AnswerCache | None) -> list[str]:
    flags = []
    if answers.failures:
        (name, _), reason = next(iter(answers.failures.items()))
        total = len(answers.failures) + len(answers.responses)
        flags.append(f"{len(answers.failures):,} of {total:,} could not be asked; first, {name}: {reason}")
    if cache is not None and cache.failure is not None:
        flags.append(f"answers could not be kept for another run: {cache.failure}")
    return flags


def _with_drop(folder: Path, summary: Mapping[str, Any], original: Path) -> dict[str, Any]:
    """Write into the control's summary what it costs beside the original, by protocol."""
    own, control = read_result(original), read_result(folder)
    costs = {name: drop(own, control, name) for name in summary["protocols"]}
    whole = {**summary, "control": {"name": summary["settings"]["control"], "protocols": costs}}
    path = folder / SUMMARY
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(whole, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return whole
