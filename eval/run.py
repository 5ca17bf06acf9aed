"""Evaluation of a model on a benchmark and its controls: generate responses, score and store them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import Example
from eval.benchmark import ByJudge, Response, ScoredRow
from eval.controls import CONTROLS, TEXT_ONLY, accuracy_drop, nothing_to_lose
from eval.generate.cache import GenerationCache, digest, open_cache
from eval.generate.generate import Generator, Question, generate_responses
from eval.generate.outcomes import Generations
from eval.generate.processes import ALONE, Processes
from eval.generate.questions import questions_of, wording_of
from eval.preparation import Evaluation, open_generator, prepare
from eval.results import (
    SCORING_PACKAGES,
    SUMMARY,
    EvalResult,
    data_fingerprint,
    package_versions,
    read_result,
    write_result,
)
from eval.scoring.estimate import scorable
from eval.scoring.protocols import judge_rules, judges_of
from eval.scoring.score import Progress, score_responses, silent
from eval.settings import Settings, build_settings
from mm_cpgd.errors import UserError
from rewards.messages import nearest

if TYPE_CHECKING:
    from eval.scoring.judge import Judge

PACKAGES = (*SCORING_PACKAGES, "torch", "transformers", "pillow", "torchvision", "peft", "requests")
# Stored as the settings have them, not as the generator reports them; None is the processor's own limit.
_LIMITS = ("min_pixels", "max_pixels")

# Gets the requested judges, and the pairs to be judged.
BeforeJudging = Callable[[Collection[ByJudge], Iterable[tuple[Example, Response]]], None]


def evaluate(
    model: str,
    benchmark: str,
    *,
    output: str | Path,
    data: str | Path | None = None,
    generator: Generator | None = None,
    cache: str | Path | None = None,
    use_cache: bool = True,
    judge: Judge | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> EvalResult:
    """Evaluate a model on one benchmark, store the result and return it.

    Args:
        model: hub name, folder, ``embedded:tiny``, or with ``endpoint`` its name on that server.
        benchmark: a name, ``path/to/file.py`` or ``path/to/file.yaml``.
        output: folder of the results, ``output/BENCHMARK`` and for controls ``output/BENCHMARK-CONTROL``.
        data: file or folder in the layout that the benchmark publishes, None for the hub.
        generator: generates the responses; None for ``open_generator`` with the settings.
        cache: folder of cached generations; None for the one in the user's cache folder.
        use_cache: False neither reads nor writes the cache.
        judge: judge for the protocols that need one; its ``budget`` bounds the cost.
        progress: opens a progress display for a title.
        settings: further fields of ``Settings``, such as ``limit``, ``split``, ``temperature``, ``endpoint``.

    Raises:
        UserError, DataError: a setting or the data cannot be used, or a control cannot be made of the data.
    """
    known = [field.name for field in fields(Settings)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise UserError(f"there is no setting {unknown[0]!r}: {nearest(unknown[0], known)}")
    (chosen,) = build_settings([benchmark], {**settings, "model": model, "data": data and str(data)})
    evaluation, folder = prepare(chosen, judge=judge is not None), Path(output)
    generator = generator or open_generator(chosen)
    store = open_cache(Path(cache) if cache else None, generator.identity) if use_cache else nullcontext()
    original = evaluation.folder(folder)
    with store as opened:
        for control in evaluation.variants:
            run_evaluation(
                evaluation, generator, evaluation.folder(folder, control), control=control,
                original=original, cache=opened, judge=judge, progress=progress,
            )  # fmt: skip
    if judge is not None:
        judge.raise_if_refused()
    return read_result(original)


def run_evaluation(
    evaluation: Evaluation,
    generator: Generator,
    folder: Path,
    *,
    control: str | None = None,
    original: Path | None = None,
    cache: GenerationCache | None = None,
    judge: Judge | None = None,
    before_judging: BeforeJudging = lambda judges, pairs: None,
    processes: Processes = ALONE,
    progress: Progress = silent,
    command: str | None = None,
) -> dict[str, Any] | None:
    """Generate, score and store one benchmark, or one control of it; return the summary.

    Args:
        evaluation: result of ``prepare``.
        generator: generates the responses.
        folder: result folder.
        control: name in ``CONTROLS``, None for the original images.
        original: with a control, the folder of the result to compare with.
        cache: cache of generations.
        judge: for the protocols that need one.
        before_judging: called before the first request to the judge.
        processes: share the questions; each calls this, the main one scores, writes and returns a summary.
        progress: opens a progress display for a title.
        command: command line, to be stored.

    Raises:
        UserError, DataError: as ``generate_responses``, ``score_responses`` and ``write_result``.
    """
    settings, benchmark, examples = evaluation.settings, evaluation.benchmark, evaluation.examples
    if control is not None:
        examples = CONTROLS[control](examples, settings.seed)
    questions = questions_of(
        benchmark, examples, evaluation.system_prompt, prompt=settings.prompt,
        shots=evaluation.shots.without_images() if control == TEXT_ONLY else evaluation.shots,
    )  # fmt: skip
    started = time.monotonic()
    with progress(f"generating {folder.name}") as report:
        generations = generate_responses(
            questions, generator, evaluation.decoding, samples=settings.samples, cache=cache,
            forcing=evaluation.forcing, processes=processes, progress=report,
        )  # fmt: skip
    if not processes.is_main:
        return None
    seconds = time.monotonic() - started
    rows = _scored(evaluation, examples, generations, judge, before_judging, folder.name, progress)
    stored = {
        **_resolved_settings(evaluation, generator),
        "control": control,
        "command": command,
        "data_fingerprint": data_fingerprint(examples),
        "images_fingerprint": generations.images,
        **_prompts(evaluation, examples, questions),
        **_judged_by(evaluation, judge),
        "packages": package_versions(PACKAGES),
        "generation": {**_statistics(generations, seconds), "processes": processes.count},
    }
    flags = [*_flags(cache), *_of_questions(evaluation, generations)]
    summary = write_result(folder, benchmark, rows, stored, flags=flags)
    if control is not None and original is not None:
        summary = _with_drop(folder, summary, original)
    return summary


def _scored(
    evaluation: Evaluation,
    examples: Sequence[Example],
    generations: Generations,
    judge: Judge | None,
    before_judging: BeforeJudging,
    title: str,
    progress: Progress,
) -> list[ScoredRow]:
    """Score the responses."""
    settings, benchmark = evaluation.settings, evaluation.benchmark
    judges = judges_of(benchmark, settings.protocols).values()
    if judge is not None and judges:
        before_judging(judges, scorable(examples, generations.responses))
    with progress(f"{'judging' if judges else 'scoring'} {title}") as report:
        return score_responses(
            benchmark, examples, generations.responses, settings.protocols, progress=report,
            ask=None if judge is None else judge.ask, declined_wrong=settings.declined == "wrong",
            workers=judge.endpoint.concurrency if judge is not None and judges else None,
        )  # fmt: skip


def _judged_by(evaluation: Evaluation, judge: Judge | None) -> dict[str, Any]:
    rules = judge_rules(evaluation.benchmark, evaluation.settings.protocols)
    return {"judge": {**judge.settings(), "rules": rules}} if judge is not None and rules else {}


def _of_questions(evaluation: Evaluation, generations: Generations) -> list[str]:
    """Return flags about questions without their images, and about responses that could not be continued."""
    lost = generations.not_forced
    lines = ["text only: the questions were asked without their images"] * evaluation.settings.text_only
    if lost:
        first = next(iter(lost.values()))
        lines.append(f"{len(lost):,} responses were cut off and could not be continued: {first.reason}")
    return lines


def _resolved_settings(evaluation: Evaluation, generator: Generator) -> dict[str, Any]:
    """Return the settings with the defaults replaced by the values that were used."""
    used = {name: generator.identity[name] for name in generator.identity if name not in _LIMITS}
    return {
        **evaluation.settings.stored(),
        **used,
        "max_new_tokens": evaluation.decoding.max_new_tokens,
        "system_prompt": evaluation.system_prompt or "",
    }


def _prompts(
    evaluation: Evaluation, examples: Sequence[Example], questions: Sequence[Question]
) -> dict[str, Any]:
    """Return whose wording the prompts are, a hash of all of them, and the first one as an example."""
    texts = [[one.id, one.system_prompt, one.text] for one in questions]
    forcing, shots = evaluation.forcing, evaluation.shots
    return {
        "prompts_fingerprint": digest(texts)[:16],
        "first_prompt": questions[0].text,
        "wording": wording_of(evaluation.benchmark, examples, evaluation.settings.prompt),
        **({"force_text": forcing.text} if forcing is not None else {}),
        **({"first_shots": [one.id for one in shots.before(examples[0])]} if shots.count else {}),
    }


def _statistics(generations: Generations, seconds: float) -> dict[str, Any]:
    tokens = [one.tokens for one in generations.responses if one.tokens is not None]
    failed = len(generations.failures)
    return {
        "answers": len(generations.responses) - failed,
        "from_cache": generations.cached,
        "failed": failed,
        "seconds": round(seconds, 3),
        "tokens": sum(tokens),
    }


def _flags(cache: GenerationCache | None) -> list[str]:
    if cache is None or cache.failure is None:
        return []
    return [f"responses could not be cached: {cache.failure}"]


def _with_drop(folder: Path, summary: Mapping[str, Any], original: Path) -> dict[str, Any]:
    """Write the accuracy drop from the original result, by protocol, into the control's summary."""
    own, control = read_result(original), read_result(folder)
    drops = {name: accuracy_drop(own, control, name) for name in summary["protocols"]}
    empty = [f"{name}: {why}" for name, drop in drops.items() if (why := nothing_to_lose(drop))]
    complete = {
        **summary,
        "flags": [*summary["flags"], *empty],
        "control": {"name": summary["settings"]["control"], "protocols": drops},
    }
    path = folder / SUMMARY
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(complete, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return complete
