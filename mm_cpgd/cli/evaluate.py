"""``mm-cpgd eval``: generate a model's responses to benchmark questions, and score them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_cpgd.cli.common import parse_settings
from mm_cpgd.cli.judge import JudgeOptions, check_judge, with_judge

if TYPE_CHECKING:
    from eval.generate.generate import Generator
    from eval.preparation import Evaluation
    from eval.settings import Settings
    from mm_cpgd.cli.results import Done

# Components of a model's path that do not identify the model.
_GENERIC_NAMES = ("final", "checkpoints", "runs", "..", ".", "/", "~")


@with_judge
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
        str | None,
        typer.Option(
            help="official, verifier, judge, judge:NAME, separated by commas; default the first two"
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            help="blank, shuffled, text-only: repeat with grey, with other rows' and without images; "
            "of videos also reversed, still"
        ),
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
    repetition_penalty: Annotated[
        float | None, typer.Option(help="default 1: none; of vLLM, and of servers as for min_p")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="text that ends a response, and is no part of it; repeatable")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="default: the benchmark's")] = None,
    force_answer: Annotated[
        str | None,
        typer.Option(
            help="continue a response that the length limit cut off once, after this text, or `ours`: "
            "So the final answer is \\boxed{"
        ),
    ] = None,
    force_tokens: Annotated[
        int | None, typer.Option(help="length limit of that continuation; default 64")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of sampling and of shuffled images; default 0")] = None,
    system_prompt: Annotated[str | None, typer.Option(help="default: the benchmark's; '' for none")] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="published (default; ours where it cannot be taken over), ours, or a template with "
            "{question} and {options}, or with {published}, or a file with one"
        ),
    ] = None,
    shots: Annotated[int | None, typer.Option(help="worked examples before each question; default 0")] = None,
    shots_data: Annotated[
        str | None, typer.Option(help="their file or folder, in the benchmark's layout")
    ] = None,
    text_only: Annotated[
        bool,
        typer.Option("--text-only", help="leave out images and videos; the result is NAME-text-only"),
    ] = False,
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
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs that share one vLLM; default 1")] = None,
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
    *,
    options: JudgeOptions,
) -> None:
    """Generate a model's responses to benchmark questions, score them, and write results and a page.

    The same command resumes an interrupted run; only what changed is generated again. Exit status 3: the
    result is written, but questions have no response or judgement; the same command asks these again. Started
    by torchrun, the processes share the questions.

    Example: `mm-cpgd eval --model runs/k12/final --benchmark mathvision --data mathvision --limit 100`
    """
    from mm_cpgd.cli.evaluation import end_incomplete, judging, opened, run_evaluations, say, shared_processes

    given: dict[str, Any] = {
        "model": model, "data": data, "split": split, "limit": limit, "samples": samples,
        "protocols": _names(protocol), "controls": _names(control), "temperature": temperature,
        "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed, "system_prompt": system_prompt,
        "min_pixels": min_pixels, "max_pixels": max_pixels, "dtype": dtype, "revision": revision,
        "engine": engine, "endpoint": ",".join(endpoint) if endpoint else None, "top_k": top_k,
        "min_p": min_p, "declined": declined, "repetition_penalty": repetition_penalty,
        "stop": tuple(stop) if stop else None, "prompt": prompt, "text_only": text_only or None,
        "shots": shots, "shots_data": shots_data, "force_answer": force_answer,
        "force_tokens": force_tokens, "tensor_parallel": tensor_parallel,
        "request": parse_settings(setting, "--setting") if setting else None,
    }  # fmt: skip
    before: list[Mapping[str, Any] | None] = []

    def prepared() -> list[Evaluation]:
        wanted, stored = _wanted(given, benchmark, like)
        before.append(stored)
        return _prepared(wanted, options)

    with shared_processes(prepared) as (evaluations, processes):
        first = evaluations[0].settings
        place = output or _default_output(first, like)

        def make() -> Generator:
            from eval.preparation import open_generator

            return open_generator(
                first, batch=batch, api_key=os.environ.get(api_key_env), concurrency=concurrency,
                requests_per_minute=requests_per_minute, timeout=timeout, processes=processes, say=say,
            )  # fmt: skip

        with (
            opened(make, processes, cache, not no_cache) as (generator, store),
            judging(evaluations, options, processes) as judge,
        ):
            results, failed = run_evaluations(evaluations, generator, place, store, judge, options, processes)
        if processes.is_main:
            _show(place, evaluations, results, like, before[0])
            end_incomplete(results, failed, no_cache)


def _wanted(
    given: Mapping[str, Any], benchmark: str | None, like: Path | None
) -> tuple[list[Settings], Mapping[str, Any] | None]:
    """Return the settings of each benchmark, and those of the result that is repeated."""
    from eval.settings import build_settings, settings_from_result

    if like is None:
        return build_settings(_names(benchmark) or (), given), None
    repeated, before = settings_from_result(like, {**given, "benchmark": benchmark})
    return [repeated], before


def _prepared(wanted: Sequence[Settings], options: JudgeOptions) -> list[Evaluation]:
    from eval.preparation import prepare
    from eval.scoring.protocols import is_judge

    if any(is_judge(name) for one in wanted for name in one.protocols):
        check_judge(options)
    return [prepare(one, judge=True) for one in wanted]


def _show(
    place: Path,
    evaluations: Sequence[Evaluation],
    results: Sequence[Done],
    like: Path | None,
    before: Mapping[str, Any] | None,
) -> None:
    """Write the page, and print the results."""
    from mm_cpgd.cli.results import print_results, write_results_page

    # Before anything is printed: a reader such as head closes the pipe, which ends the command.
    page = write_results_page(place, evaluations, results)
    print_results(results, like, before)
    print(f"page: {page}")


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
