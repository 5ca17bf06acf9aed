"""Preparation of an evaluation: settings and data are checked before anything is loaded or generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data import DataError, Example
from eval.benchmark import Benchmark, DataSource
from eval.benchmarks import find_benchmark
from eval.controls import OF_VIDEOS, TEXT_ONLY, checked_controls
from eval.generate.decoding import Decoding, check_request, length_limit
from eval.generate.forced import Forcing, find_forcing
from eval.generate.generate import Generator, check_samples
from eval.generate.processes import ALONE, Processes, check_sharing
from eval.generate.questions import NO_SHOTS, Shots, read_template, without_images
from eval.scoring.protocols import checked_protocols, is_judge
from eval.settings import Settings
from mm_cpgd.errors import UserError
from rewards.messages import nearest

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
        shots: worked examples before each question.
        forcing: continuation of responses that are cut off, None for none.
    """

    settings: Settings
    benchmark: Benchmark
    examples: Sequence[Example]
    decoding: Decoding
    system_prompt: str | None
    shots: Shots = NO_SHOTS
    forcing: Forcing | None = None

    @property
    def variants(self) -> list[str | None]:
        """None for the benchmark itself, then its controls."""
        return [None, *self.settings.controls]

    def folder(self, output: Path, control: str | None = None) -> Path:
        """Return the result folder of the benchmark or of one of its controls."""
        parts = [self.benchmark.name, *([TEXT_ONLY] if self.settings.text_only else []), control]
        return output / "-".join(part for part in parts if part)


def prepare(settings: Settings, *, judge: bool = False) -> Evaluation:
    """Check the settings and read the rows; no image is opened.

    Args:
        settings: of one benchmark.
        judge: whether there is a judge for the protocols that need one.

    Raises:
        UserError, DataError: something in the settings or the data cannot be used.
    """
    benchmark = find_benchmark(settings.benchmark)
    decoding = _decoding(settings, benchmark)
    forcing = find_forcing(settings.force_answer, settings.force_tokens)
    protocols = checked_protocols(settings.protocols, benchmark)
    controls = checked_controls(settings.controls)
    if not judge and (asked := [name for name in protocols if is_judge(name)]):
        raise UserError(f"the protocol {asked[0]} needs a judge: give --judge-url and --judge-model")
    _check(settings)
    settings = replace(
        settings, protocols=tuple(protocols), controls=tuple(controls),
        prompt=read_template(settings.prompt), stop=tuple(settings.stop),
    )  # fmt: skip
    system = settings.system_prompt if settings.system_prompt is not None else benchmark.system_prompt
    examples, shots = _examples(settings, benchmark), _shots(settings, benchmark)
    return Evaluation(settings, benchmark, examples, decoding, system or None, shots, forcing)


def _decoding(settings: Settings, benchmark: Benchmark) -> Decoding:
    check_request(settings.request)
    limit = length_limit(settings.request, settings.max_new_tokens)
    decoding = Decoding(
        benchmark.max_new_tokens if limit is None else limit, settings.temperature, settings.top_p,
        settings.seed, settings.top_k, settings.min_p, settings.request, settings.repetition_penalty,
        tuple(settings.stop),
    )  # fmt: skip
    check_samples(settings.samples, decoding)
    return decoding


def _examples(settings: Settings, benchmark: Benchmark) -> list[Example]:
    """Return the questions, without their images if so requested."""
    examples = benchmark.load(DataSource(settings.data, settings.split, settings.limit))
    if not examples:
        raise DataError(f"{settings.benchmark} has no rows in {settings.data or 'the hub'}; check --split")
    pictured = any(one.images or one.videos for one in examples)
    if settings.controls and not pictured:
        raise DataError(f"no row of {benchmark.name} has an image or a video; omit --control")
    moving = [name for name in settings.controls if name in OF_VIDEOS]
    if moving and not any(one.videos for one in examples):
        raise DataError(f"no row of {benchmark.name} has a video; omit --control {moving[0]}")
    if settings.text_only and not pictured:
        raise DataError(f"no row of {benchmark.name} has an image or a video; omit --text-only")
    return [without_images(one) for one in examples] if settings.text_only else examples


def _shots(settings: Settings, benchmark: Benchmark) -> Shots:
    """Return the worked examples before each question."""
    if settings.shots < 0:
        raise UserError(f"--shots {settings.shots} must be 0 or above")
    if bool(settings.shots) != (settings.shots_data is not None):
        raise UserError("--shots and --shots-data go together: the number of worked examples, and their rows")
    if not settings.shots:
        return NO_SHOTS
    found = [one for one in benchmark.load(DataSource(settings.shots_data)) if one.answer.strip()]
    shots = Shots(found, settings.shots)
    return shots.without_images() if settings.text_only else shots


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
    if settings.endpoint is None and settings.engine == "local" and settings.repetition_penalty != 1:
        raise UserError("--repetition-penalty is vLLM's or a server's: give --engine vllm or --endpoint")
    if settings.tensor_parallel != 1 and (settings.endpoint is not None or settings.engine != "vllm"):
        raise UserError("--tensor-parallel is for --engine vllm; a server is started with its own")
    if settings.text_only and settings.controls:
        raise UserError(
            "--text-only leaves no image for --control to replace; --control text-only compares both"
        )
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
    processes: Processes = ALONE,
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
        processes: the processes of the evaluation.
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

    check_sharing(settings.tensor_parallel, processes.count)
    return LocalGenerator(
        settings.model, revision=settings.revision, dtype=settings.dtype,
        engine=settings.engine, batch=batch or _BATCH[settings.engine],
        tensor_parallel=settings.tensor_parallel, processes=processes,
        min_pixels=settings.min_pixels, max_pixels=settings.max_pixels,
    )  # fmt: skip
