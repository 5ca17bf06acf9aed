"""Evaluation of a model on a benchmark and its controls: generate responses, score and store them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from data import DataError, Example
from eval.benchmark import Benchmark, DataSource
from eval.benchmarks import find_benchmark
from eval.controls import CONTROLS, accuracy_drop, checked_controls, nothing_to_lose
from eval.generate.cache import GenerationCache, digest, open_cache
from eval.generate.decoding import Decoding, check_request, length_limit
from eval.generate.generate import (
    Generations,
    Generator,
    Question,
    check_samples,
    generate_responses,
    questions_of,
)
from eval.results import (
    SCORING_PACKAGES,
    SUMMARY,
    EvalResult,
    data_fingerprint,
    package_versions,
    read_result,
    write_result,
)
from eval.scoring.protocols import checked_protocols, is_judge
from eval.scoring.score import Progress, score_responses, silent
from eval.settings import Settings, build_settings
from mm_cpgd.errors import UserError
from rewards.messages import nearest

PACKAGES = (*SCORING_PACKAGES, "torch", "transformers", "pillow", "torchvision", "peft", "requests")
# Stored as the settings have them, not as the generator reports them; None is the processor's own limit.
_LIMITS = ("min_pixels", "max_pixels")
ENGINES = ("local", "vllm")
DECLINED_AS = ("unscored", "wrong")
DTYPES = ("auto", "float32", "bfloat16")
# Responses decoded together by default.
_BATCH = {"local": 16, "vllm": 512}


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of one benchmark whose settings and data have been checked.

    Attributes:
        settings: the requested settings.
        benchmark: found by its name.
        examples: its rows.
        decoding: sampling settings.
        system_prompt: the benchmark's, unless the settings have one.
    """

    settings: Settings
    benchmark: Benchmark
    examples: Sequence[Example]
    decoding: Decoding
    system_prompt: str | None

    @property
    def variants(self) -> list[str | None]:
        """None for the benchmark itself, then its controls."""
        return [None, *self.settings.controls]

    def folder(self, output: Path, control: str | None = None) -> Path:
        """Return the result folder of the benchmark or of one of its controls."""
        return output / (f"{self.benchmark.name}-{control}" if control else self.benchmark.name)


def evaluate(
    model: str,
    benchmark: str,
    *,
    output: str | Path,
    data: str | Path | None = None,
    generator: Generator | None = None,
    cache: str | Path | None = None,
    use_cache: bool = True,
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
    evaluation, folder = prepare(chosen), Path(output)
    generator = generator or open_generator(chosen)
    store = open_cache(Path(cache) if cache else None, generator.identity) if use_cache else nullcontext()
    original = evaluation.folder(folder)
    with store as opened:
        for control in evaluation.variants:
            run_evaluation(
                evaluation, generator, evaluation.folder(folder, control), control=control,
                original=original, cache=opened, progress=progress,
            )  # fmt: skip
    return read_result(original)


def prepare(settings: Settings) -> Evaluation:
    """Check the settings and read the rows; no image is opened.

    Raises:
        UserError, DataError: something in the settings or the data cannot be used.
    """
    benchmark = find_benchmark(settings.benchmark)
    check_request(settings.request)
    limit = length_limit(settings.request, settings.max_new_tokens)
    decoding = Decoding(
        benchmark.max_new_tokens if limit is None else limit, settings.temperature, settings.top_p,
        settings.seed, settings.top_k, settings.min_p, settings.request,
    )  # fmt: skip
    check_samples(settings.samples, decoding)
    protocols, controls = (
        checked_protocols(settings.protocols, benchmark),
        checked_controls(settings.controls),
    )
    if any(map(is_judge, protocols)):
        raise UserError(
            "mm-cpgd eval does not call a judge; evaluate by official and verifier, then pass the rows.jsonl "
            "of the result to mm-cpgd score --protocol judge --predictions"
        )
    _check(settings)
    examples = benchmark.load(DataSource(settings.data, settings.split, settings.limit))
    if not examples:
        raise DataError(f"{settings.benchmark} has no rows in {settings.data or 'the hub'}; check --split")
    if controls and not any(one.images for one in examples):
        raise DataError(f"no row of {benchmark.name} has an image; omit --control")
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
    if settings.endpoint is None and settings.request:
        raise UserError("--setting is for the requests to a server: give --endpoint, or omit it")
    if settings.declined not in DECLINED_AS:
        raise UserError(
            f"there is no --declined {settings.declined!r}: {nearest(settings.declined, DECLINED_AS)}"
        )
    if least is not None and most is not None and least > most:
        raise UserError(f"--min-pixels {least:,} must not be above --max-pixels {most:,}")


def open_generator(
    settings: Settings,
    *,
    batch: int | None = None,
    api_key: str | None = None,
    concurrency: int = 8,
    requests_per_minute: float | None = None,
    timeout: float = 600.0,
    say: Callable[[str], None] = lambda text: None,
) -> Generator:
    """Return the generator of the settings: a server if ``endpoint`` is set (no torch), else a local model.

    Args:
        settings: settings of the evaluation.
        batch: responses that a local model decodes together; None for 16, with vLLM 512.
        api_key: the server's key, None if it needs none.
        concurrency: maximum number of concurrent requests to a server.
        requests_per_minute: limit for a server, None for no limit.
        timeout: seconds until a request without a complete reply is abandoned.
        say: told that one of several servers is left out or comes back.
    """
    if settings.endpoint is not None:
        from eval.generate.server import ServerGenerator
        from eval.generate.servers import open_endpoint

        server = open_endpoint(
            settings.endpoints, settings.model, api_key, say=say, concurrency=concurrency,
            requests_per_minute=requests_per_minute, timeout=timeout,
        )  # fmt: skip
        return ServerGenerator(server, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)
    from eval.generate.local import LocalGenerator

    return LocalGenerator(
        settings.model, revision=settings.revision, dtype=settings.dtype,
        engine=settings.engine, batch=batch or _BATCH[settings.engine],
        min_pixels=settings.min_pixels, max_pixels=settings.max_pixels,
    )  # fmt: skip


def run_evaluation(
    evaluation: Evaluation,
    generator: Generator,
    folder: Path,
    *,
    control: str | None = None,
    original: Path | None = None,
    cache: GenerationCache | None = None,
    progress: Progress = silent,
    command: str | None = None,
) -> dict[str, Any]:
    """Generate, score and store one benchmark, or one control of it; return the summary.

    Args:
        evaluation: result of ``prepare``.
        generator: generates the responses.
        folder: result folder.
        control: name in ``CONTROLS``, None for the original images.
        original: with a control, the folder of the result to compare with.
        cache: cache of generations.
        progress: opens a progress display for a title.
        command: command line, to be stored.

    Raises:
        UserError, DataError: as ``generate_responses``, ``score_responses`` and ``write_result``.
    """
    settings, benchmark, examples = evaluation.settings, evaluation.benchmark, evaluation.examples
    if control is not None:
        examples = CONTROLS[control](examples, settings.seed)
    questions = list(questions_of(benchmark, examples, evaluation.system_prompt))
    started = time.monotonic()
    with progress(f"generating {folder.name}") as report:
        generations = generate_responses(
            questions, generator, evaluation.decoding, samples=settings.samples, cache=cache, progress=report
        )
    seconds = time.monotonic() - started
    with progress(f"scoring {folder.name}") as report:
        rows = score_responses(
            benchmark, examples, generations.responses, settings.protocols, progress=report,
            declined_wrong=settings.declined == "wrong",
        )  # fmt: skip
    stored = {
        **_resolved_settings(evaluation, generator),
        "control": control,
        "command": command,
        "data_fingerprint": data_fingerprint(examples),
        "images_fingerprint": generations.images,
        **_prompts(questions),
        "packages": package_versions(PACKAGES),
        "generation": _statistics(generations, seconds),
    }
    summary = write_result(folder, benchmark, rows, stored, flags=_flags(cache))
    if control is not None and original is not None:
        summary = _with_drop(folder, summary, original)
    return summary


def _resolved_settings(evaluation: Evaluation, generator: Generator) -> dict[str, Any]:
    """Return the settings with the defaults replaced by the values that were used."""
    used = {name: generator.identity[name] for name in generator.identity if name not in _LIMITS}
    return {
        **evaluation.settings.stored(),
        **used,
        "max_new_tokens": evaluation.decoding.max_new_tokens,
        "system_prompt": evaluation.system_prompt or "",
    }


def _prompts(questions: Sequence[Question]) -> dict[str, Any]:
    """Return a hash of all prompts, and the first one as an example of the format."""
    texts = [[one.id, one.system_prompt, one.text] for one in questions]
    return {"prompts_fingerprint": digest(texts)[:16], "first_prompt": questions[0].text}


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
