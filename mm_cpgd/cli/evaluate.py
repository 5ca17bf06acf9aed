"""``mm-cpgd eval``: ask a model the questions of benchmarks, and score what it answers."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from data import DataError
from mm_cpgd.errors import RunEnded

if TYPE_CHECKING:
    from eval.generate.cache import AnswerCache
    from eval.generate.generate import Generator
    from eval.run import Evaluation
    from eval.settings import Settings

# Seconds between lines where there is no terminal to show a bar in.
PLAIN_SECONDS = 30.0

# Parts of a model's path that name no model.
_SAYS_NOTHING = ("final", "checkpoints", "runs", "..", ".", "/", "~")


def evaluate(
    model: Annotated[
        str | None, typer.Option(help="hub name, folder, embedded:tiny; the server's name")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="names with commas between, or path/to/file.py")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="file or folder in the published layout, or of such folders; default: the hub"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="of the data; default: the one usually reported")] = None,
    limit: Annotated[int | None, typer.Option(help="rows to ask at most, the first ones")] = None,
    samples: Annotated[int | None, typer.Option(help="answers to each question; default 1")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="official, verifier, with commas between; default both")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="blank, shuffled: repeat with grey and with other rows' images")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="default: runs/eval/MODEL; a folder for each benchmark in it")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="default 0: the most probable token")] = None,
    top_p: Annotated[float | None, typer.Option(help="default 1")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="default: the benchmark's")] = None,
    seed: Annotated[int | None, typer.Option(help="of drawn answers and shuffled images; default 0")] = None,
    system_prompt: Annotated[str | None, typer.Option(help="default: the benchmark's; '' for none")] = None,
    min_pixels: Annotated[
        int | None, typer.Option(min=1, help="scale smaller images up to this area")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="scale larger images down to this area")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, float32 or bfloat16; auto is bfloat16 on a GPU")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="of a hub name")] = None,
    engine: Annotated[str | None, typer.Option(help="local or vllm, as in training; default local")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="answers decoded together; default 16, of vllm 512")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="ask an OpenAI-compatible server instead; usually ends in /v1")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="requests under way at the server")] = 8,
    requests_per_minute: Annotated[float | None, typer.Option(help="limit for the server")] = None,
    timeout: Annotated[float, typer.Option(help="seconds until a request is given up")] = 600.0,
    api_key_env: Annotated[
        str, typer.Option(help="environment variable that holds the server's key, if it needs one")
    ] = "OPENAI_API_KEY",
    cache: Annotated[
        Path | None, typer.Option(help="folder of kept answers; default: mm-cpgd/answers in the user's cache")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="generate everything, keep nothing")] = False,
    like: Annotated[
        Path | None,
        typer.Option(help="repeat a stored result; of what decides it, only where things lie may be given"),
    ] = None,
) -> None:
    """Ask a model the questions of benchmarks, score its answers, and write results and a page.

    An interrupted run continues where it stopped; only what changed is generated again.

    Example: `mm-cpgd eval --model runs/k12/final --benchmark mathvision --data mathvision --limit 100`
    """
    from eval.run import prepare
    from eval.settings import settings_like, settings_of
    from mm_cpgd.cli.results import print_results, write_results_page

    given: dict[str, Any] = {
        "model": model, "data": data, "split": split, "limit": limit, "samples": samples,
        "protocols": _names(protocol), "controls": _names(control), "temperature": temperature,
        "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed, "system_prompt": system_prompt,
        "min_pixels": min_pixels, "max_pixels": max_pixels, "dtype": dtype, "revision": revision,
        "engine": engine,
        "endpoint": endpoint,
    }  # fmt: skip
    before: Mapping[str, Any] | None = None
    if like is None:
        wanted = settings_of(_names(benchmark) or (), given)
    else:
        repeated, before = settings_like(like, {**given, "benchmark": benchmark})
        wanted = [repeated]
    evaluations = [prepare(one) for one in wanted]
    generator = _generator(wanted[0], batch, concurrency, requests_per_minute, timeout, api_key_env)
    place = output or _default_output(wanted[0], like)
    store = nullcontext() if no_cache else _open_cache(cache, generator)
    with store as answers:
        results = _run(evaluations, generator, place, answers)
    print_results(results, like, before)
    print(f"page: {write_results_page(place, evaluations, results)}")


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _generator(
    settings: Settings, batch: int | None, concurrency: int, rate: float | None, timeout: float, key: str
) -> Generator:
    """Return who answers; a server needs no torch."""
    if settings.endpoint is not None:
        from eval.generate.client import Endpoint
        from eval.generate.server import ServerGenerator

        server = Endpoint(
            settings.endpoint, settings.model, os.environ.get(key), concurrency=concurrency,
            requests_per_minute=rate, timeout=timeout,
        )  # fmt: skip
        return ServerGenerator(server, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)
    from eval.generate.local import LocalGenerator

    return LocalGenerator(
        settings.model, revision=settings.revision, dtype=settings.dtype,
        engine=settings.engine, batch=batch or (512 if settings.engine == "vllm" else 16),
        min_pixels=settings.min_pixels, max_pixels=settings.max_pixels,
    )  # fmt: skip


def _default_output(settings: Settings, like: Path | None) -> Path:
    if like is not None:
        folder = like.parent if like.name == "summary.json" else like
        return folder.with_name(f"{folder.resolve().name}-again")
    name = settings.model.rstrip("/").replace(":", "-")
    path = Path(name)
    # A run's policy lies in runs/NAME/final: the run's name says more than "final".
    parts = [part for part in path.parts[-3:] if part not in _SAYS_NOTHING]
    return Path("runs") / "eval" / ("-".join(parts) or "model")


def _open_cache(folder: Path | None, generator: Generator) -> AnswerCache:
    from eval.generate.cache import cache_of

    opened = cache_of(folder, generator.identity)
    if opened.damaged:
        _say(f"{opened.path}: {opened.damaged:,} damaged answers are passed over and generated again")
    return opened


def _run(
    evaluations: Sequence[Evaluation], generator: Generator, output: Path, cache: AnswerCache | None
) -> list[tuple[str, Path, dict[str, Any]]]:
    """Evaluate every benchmark and its controls; return title, folder and summary of each."""
    from eval.run import evaluate

    results = []
    for evaluation in evaluations:
        original = evaluation.folder(output)
        for control in evaluation.parts:
            folder = evaluation.folder(output, control)
            title = folder.name
            try:
                summary = evaluate(
                    evaluation, generator, folder, control=control, original=original, cache=cache,
                    showing=_progress, command=shlex.join(sys.argv),
                )  # fmt: skip
            except DataError as error:
                if control is None:
                    raise
                # Only of controls: what was evaluated stands without them.
                _say(f"{title} is left out: {error}")
                continue
            except KeyboardInterrupt:
                kept = (
                    "with --no-cache nothing is kept"
                    if cache is None
                    else "the same command goes on from here"
                )
                raise RunEnded(f"stopped at {title}; {kept}", 130) from None
            results.append((title, folder, summary))
    return results


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told (done, all): a bar in a terminal, else a line now and then."""
    from mm_cpgd.preflight.data import slow_bar

    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            _say(f"{title}: {done:,} of {total:,}")

    if sys.stderr.isatty():
        with slow_bar(Console(stderr=True), title) as bar:
            yield bar
    else:
        yield line


def _say(message: str) -> None:
    print(f"mm-cpgd: {message}", file=sys.stderr)
