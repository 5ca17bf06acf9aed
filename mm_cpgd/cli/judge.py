"""Construction of an LLM judge from options: cost estimate, confirmation, cache. No torch."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
from rich.console import Console

from data import Example
from eval.benchmark import Benchmark, Response
from eval.generate.cache import AnswerCache, default_folder
from eval.generate.client import Endpoint
from eval.scoring.judge import SAMPLING, Estimate, Judge, estimate, judged, price
from mm_cpgd.errors import UserError


@dataclass(frozen=True)
class JudgeOptions:
    """The judge as the command line names it; the defaults are the commands'.

    Attributes:
        url: of an OpenAI-compatible server, with its ``/v1``.
        model: its name there.
        key_env: environment variable that holds the server's key; None for a server without keys.
        per_minute: requests a minute at most, None for no limit.
        concurrency: requests at the same time at most.
        timeout: seconds to wait for a reply.
        retries: further attempts at a request that failed.
        settings: sampling as ``key=value``, over ``eval.scoring.judge.SAMPLING``; ``null`` leaves a key out.
        price_in: of a million prompt tokens, None if unknown.
        price_out: of a million completion tokens, None if unknown.
        cache: file of known replies; None for the one in the user's cache.
        yes: do not ask before it is paid.
    """

    url: str | None = None
    model: str | None = None
    key_env: str | None = None
    per_minute: float | None = None
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    settings: Sequence[str] = ()
    price_in: float | None = None
    price_out: float | None = None
    cache: Path | None = None
    yes: bool = False


@contextmanager
def judging(
    options: JudgeOptions,
    benchmark: Benchmark,
    examples: Sequence[Example],
    responses: Sequence[Response],
    console: Console,
) -> Iterator[Judge]:
    """Give a judge for these answers, after an estimate and a confirmation; at the end print what was asked.

    Raises:
        UserError: no server is named, or nobody is there to confirm; at the end: the server refused address,
            model or key, and judged nothing.
        DataError: the cache cannot be used.
        typer.Abort: the person said no.
    """
    if not options.url or not options.model:
        raise UserError("the protocol judge needs a judge: give --judge-url and --judge-model")
    path = options.cache or default_folder().parent / "judgements.jsonl"
    with AnswerCache(path) as cache:
        judge = Judge(_endpoint(options), cache=cache, sampling=_sampling(options.settings))
        expected = estimate(
            benchmark.judge or judged,
            _answered(examples, responses),
            judge.recall,
            price_in=options.price_in,
            price_out=options.price_out,
        )
        console.print(str(expected), highlight=False)
        if expected.requests:
            confirm(expected, options)
        yield judge
        if judge.refused and not judge.endpoint.usage.requests:
            raise judge.refused
        _print_spent(judge, options, console)


def confirm(expected: Estimate, options: JudgeOptions) -> None:
    """Ask whether to go on, unless --yes was given or the server is on this machine and has no price.

    Raises:
        UserError: nobody is there to be asked.
        typer.Abort: the answer was no.
    """
    free = options.price_in is None and options.price_out is None and _is_here(options.url or "")
    if options.yes or free:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{expected}; nobody is there to confirm: give --yes to go on without")
    typer.confirm("Ask them?", abort=True, err=True)


def _answered(
    examples: Sequence[Example], responses: Sequence[Response]
) -> Iterator[tuple[Example, Response]]:
    """Yield what will be judged: a question that has a gold answer, with each answer to it."""
    asked = {example.id: example for example in examples if example.answer.strip()}
    return ((asked[one.id], one) for one in responses if one.id in asked)


def _endpoint(options: JudgeOptions) -> Endpoint:
    key = os.environ.get(options.key_env) if options.key_env else None
    if options.key_env and not key:
        raise UserError(f"--judge-key-env: the environment has no {options.key_env}; export it with the key")
    return Endpoint(
        options.url or "",
        options.model or "",
        key,
        concurrency=options.concurrency,
        requests_per_minute=options.per_minute,
        timeout=options.timeout,
        max_retries=options.retries,
    )


def _sampling(settings: Sequence[str]) -> dict[str, Any]:
    """Return the judge's own sampling with the settings put over it; null takes one out."""
    merged: dict[str, Any] = {**SAMPLING, **_parsed(settings)}
    return {name: value for name, value in merged.items() if value is not None}


def _parsed(settings: Sequence[str]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UserError(f"--judge-setting {setting!r} must be key=value, such as max_tokens=2000")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _print_spent(judge: Judge, options: JudgeOptions, console: Console) -> None:
    used = judge.endpoint.usage
    cost = price(used.prompt_tokens, used.completion_tokens, options.price_in, options.price_out)
    told = f"{used.prompt_tokens:,} tokens in and {used.completion_tokens:,} out"
    paid = f", cost {cost:,.2f}" if cost is not None else ""
    known = f"{used.requests:,} replies, {judge.remembered:,} known ones"
    console.print(f"judge: {known}, {told}{paid}", highlight=False)
