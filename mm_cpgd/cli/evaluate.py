"""``mm-cpgd eval``: generate a model's responses to benchmark questions, and score them."""

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
from mm_cpgd.cli.common import INCOMPLETE, parse_settings
from mm_cpgd.errors import RunEnded

if TYPE_CHECKING:
    from eval.generate.cache import GenerationCache
    from eval.generate.generate import Generator
    from eval.run import Evaluation
    from eval.settings import Settings

# Seconds between progress lines without a terminal.
PLAIN_SECONDS = 30.0

# Components of a model's path that do not identify the model.
_GENERIC_NAMES = ("final", "checkpoints", "runs", "..", ".", "/", "~")


def evaluate(
    model: Annotated[
        str | None, typer.Option(help="hub name, folder, embedded:tiny; with --endpoint its name there")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="names (see mm-cpgd benchmarks), path/to/file.py or file.yaml, separated by commas"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="file or folder in the published layout, or folder of these; default: the hub"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="split of the data; default: the one usually reported")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="maximum number of rows, taken from the start")] = None,
    samples: Annotated[int | None, typer.Option(help="responses per question; default 1")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="official, verifier, separated by commas; default both")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="blank, shuffled: repeat with grey and with other rows' images")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="default: runs/eval/MODEL; contains one folder per benchmark")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="default 0: the most probable token")] = None,
    top_p: Annotated[float | None, typer.Option(help="default 1")] = None,
    top_k: Annotated[
        int | None, typer.Option(help="default 0: all tokens; of servers, vLLM and SGLang")
    ] = None,
    min_p: Annotated[float | None, typer.Option(help="default 0; of servers, vLLM and SGLang")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="default: the benchmark's")] = None,
    seed: Annotated[int | None, typer.Option(help="of sampling and of shuffled images; default 0")] = None,
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
    revision: Annotated[str | None, typer.Option(help="revision of a hub name")] = None,
    engine: Annotated[str | None, typer.Option(help="local or vllm, as in training; default local")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="responses decoded together; default 16, with vllm 512")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="use an OpenAI-compatible server instead; usually ends in /v1; several share the questions: "
            "URL,URL or repeated"
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="key=value of the requests to the server, such as max_completion_tokens=4096 (replaces "
            "max_tokens) or reasoning_effort=low; temperature=null leaves it out; repeatable"
        ),
    ] = None,
    declined: Annotated[
        str | None,
        typer.Option(help="count refused, filtered and empty replies as unscored (default) or wrong"),
    ] = None,
    concurrency: Annotated[int, typer.Option(help="maximum number of concurrent requests to a server")] = 8,
    requests_per_minute: Annotated[float | None, typer.Option(help="limit for a server")] = None,
    timeout: Annotated[
        float, typer.Option(help="seconds until a request without a complete reply is abandoned")
    ] = 600.0,
    api_key_env: Annotated[
        str, typer.Option(help="environment variable with the server's key, if it needs one")
    ] = "OPENAI_API_KEY",
    cache: Annotated[
        Path | None, typer.Option(help="folder of caches; default: mm-cpgd/answers in the user cache")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="neither read nor write the cache")] = False,
    like: Annotated[
        Path | None,
        typer.Option(help="repeat a stored result; only the locations of model and data may change"),
    ] = None,
) -> None:
    """Generate a model's responses to benchmark questions, score them, and write results and a page.

    The same command resumes an interrupted run; only what changed is generated again. Exit status 3: the
    result is written, but questions have no response; the same command asks these again.

    Example: `mm-cpgd eval --model runs/k12/final --benchmark mathvision --data mathvision --limit 100`
    """
    from eval.run import open_generator, prepare
    from eval.settings import build_settings, settings_from_result
    from mm_cpgd.cli.results import print_results, write_results_page

    given: dict[str, Any] = {
        "model": model, "data": data, "split": split, "limit": limit, "samples": samples,
        "protocols": _names(protocol), "controls": _names(control), "temperature": temperature,
        "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed, "system_prompt": system_prompt,
        "min_pixels": min_pixels, "max_pixels": max_pixels, "dtype": dtype, "revision": revision,
        "engine": engine, "endpoint": ",".join(endpoint) if endpoint else None, "top_k": top_k,
        "min_p": min_p, "declined": declined,
        "request": parse_settings(setting, "--setting") if setting else None,
    }  # fmt: skip
    before: Mapping[str, Any] | None = None
    if like is None:
        wanted = build_settings(_names(benchmark) or (), given)
    else:
        repeated, before = settings_from_result(like, {**given, "benchmark": benchmark})
        wanted = [repeated]
    evaluations = [prepare(one) for one in wanted]
    generator = open_generator(
        wanted[0], batch=batch, api_key=os.environ.get(api_key_env), concurrency=concurrency,
        requests_per_minute=requests_per_minute, timeout=timeout, say=_say,
    )  # fmt: skip
    place = output or _default_output(wanted[0], like)
    store = nullcontext() if no_cache else _open_cache(cache, generator)
    with store as opened:
        results, failed = _run(evaluations, generator, place, opened)
    # Before anything is printed: a reader such as head closes the pipe, which ends the command.
    page = write_results_page(place, evaluations, results)
    print_results(results, like, before)
    print(f"page: {page}")
    _end_incomplete(results, failed, no_cache)


def _end_incomplete(
    results: Sequence[tuple[str, Path, Mapping[str, Any]]], failed: Sequence[str], no_cache: bool
) -> None:
    """Raise ``RunEnded`` if questions have no response, or controls have no result."""
    open_ = {title: summary["unanswered"]["count"] for title, _, summary in results}
    lacking = [f"{title} lacks {count:,} responses" for title, count in open_.items() if count]
    lacking += [f"{title} has no result" for title in failed]
    if lacking:
        then = "with --no-cache all questions are asked again" if no_cache else "it asks only these again"
        raise RunEnded(f"{', '.join(lacking)}; run the same command again: {then}", INCOMPLETE)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _default_output(settings: Settings, like: Path | None) -> Path:
    if like is not None:
        folder = like.parent if like.name == "summary.json" else like
        return folder.with_name(f"{folder.resolve().name}-again")
    name = settings.model.rstrip("/").replace(":", "-")
    path = Path(name)
    # The policy of a run is in runs/NAME/final: the run's name identifies it, "final" does not.
    parts = [part for part in path.parts[-3:] if part not in _GENERIC_NAMES]
    return Path("runs") / "eval" / ("-".join(parts) or "model")


def _open_cache(folder: Path | None, generator: Generator) -> GenerationCache:
    from eval.generate.cache import open_cache

    opened = open_cache(folder, generator.identity)
    if opened.damaged:
        _say(f"{opened.path}: {opened.damaged:,} damaged lines are skipped, their responses generated again")
    return opened


def _run(
    evaluations: Sequence[Evaluation], generator: Generator, output: Path, cache: GenerationCache | None
) -> tuple[list[tuple[str, Path, dict[str, Any]]], list[str]]:
    """Evaluate every benchmark and its controls.

    Returns:
        Title, folder and summary of each; titles of controls to which no response could be generated.
    """
    from eval.generate.generate import NoneAnswered
    from eval.run import run_evaluation

    results, failed = [], []
    for evaluation in evaluations:
        original = evaluation.folder(output)
        for control in evaluation.variants:
            folder = evaluation.folder(output, control)
            title = folder.name
            try:
                summary = run_evaluation(
                    evaluation, generator, folder, control=control, original=original, cache=cache,
                    progress=_progress, command=shlex.join(sys.argv),
                )  # fmt: skip
            except DataError as error:
                if control is None:
                    raise
                # A control that cannot be made does not invalidate the results without it.
                _say(f"{title} is skipped: {error}")
                failed += [title] if isinstance(error, NoneAnswered) else []
                continue
            except KeyboardInterrupt:
                advice = (
                    "with --no-cache nothing is kept" if cache is None else "the same command resumes here"
                )
                raise RunEnded(f"stopped at {title}; {advice}", 130) from None
            results.append((title, folder, summary))
    return results, failed


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress as a bar in a terminal, else as a line every ``PLAIN_SECONDS``."""
    from mm_cpgd.tracking.progress import slow_bar

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
