"""Options of an LLM judge, and its construction from them: cost estimate, confirmation, cache. No torch."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console

from mm_cpgd.cli.common import parse_settings
from mm_cpgd.errors import UserError

if TYPE_CHECKING:
    from data import Example
    from eval.benchmark import Benchmark, Response
    from eval.generate.client import Endpoint
    from eval.scoring.estimate import Estimate
    from eval.scoring.judge import Judge

_PANEL = "Judge"

JudgeUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible server, such as http://localhost:8000/v1", rich_help_panel=_PANEL),
]
JudgeModel = Annotated[str | None, typer.Option(help="its name on the server", rich_help_panel=_PANEL)]
JudgeKeyEnv = Annotated[
    str | None, typer.Option(help="environment variable with the server's key", rich_help_panel=_PANEL)
]
JudgePerMinute = Annotated[
    float | None, typer.Option(help="maximum number of requests per minute", rich_help_panel=_PANEL)
]
JudgeConcurrency = Annotated[
    int, typer.Option(min=1, help="maximum number of concurrent requests", rich_help_panel=_PANEL)
]
JudgeTimeout = Annotated[
    float,
    typer.Option(
        help="seconds until a request without a complete reply is abandoned", rich_help_panel=_PANEL
    ),
]
JudgeRetries = Annotated[int, typer.Option(min=0, help="retries of a failed request", rich_help_panel=_PANEL)]
JudgeSetting = Annotated[
    list[str] | None,
    typer.Option(
        help="sampling key=value, such as max_tokens=2000; the value null removes the key; repeatable",
        rich_help_panel=_PANEL,
    ),
]
JudgePriceIn = Annotated[
    float | None, typer.Option(min=0, help="price of a million prompt tokens", rich_help_panel=_PANEL)
]
JudgePriceOut = Annotated[
    float | None, typer.Option(min=0, help="price of a million completion tokens", rich_help_panel=_PANEL)
]
JudgeCache = Annotated[
    Path | None,
    typer.Option(help="file of cached replies; default: in the user's cache folder", rich_help_panel=_PANEL),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="call the judge without confirmation", rich_help_panel=_PANEL)
]


@dataclass(frozen=True)
class JudgeOptions:
    """Options of the judge on the command line; the defaults are those of the commands.

    Attributes:
        url: address of an OpenAI-compatible server, with its ``/v1``.
        model: its name there.
        key_env: environment variable with the server's key; None for a server without keys.
        per_minute: maximum number of requests per minute, None for no limit.
        concurrency: maximum number of concurrent requests.
        timeout: seconds until a request without a complete reply is abandoned.
        retries: number of retries of a failed request.
        settings: sampling as ``key=value``, over ``eval.scoring.judge.SAMPLING``; ``null`` removes a key.
        price_in: price of a million prompt tokens, None if unknown.
        price_out: price of a million completion tokens, None if unknown.
        cache: file of cached replies; None for the one in the user's cache folder.
        yes: skip the confirmation.
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
def open_judge(
    options: JudgeOptions,
    benchmark: Benchmark,
    examples: Sequence[Example],
    responses: Sequence[Response],
    console: Console,
) -> Iterator[Judge]:
    """Open a judge for these responses, after an estimate and a confirmation; at the end print its usage.

    Raises:
        UserError: no server is named, or confirmation is impossible; at the end: the server refused address,
            model or key of every request.
        DataError: the cache cannot be used.
        typer.Abort: the user declined.
    """
    from eval.generate.cache import GenerationCache, default_folder
    from eval.scoring.estimate import estimate
    from eval.scoring.judge import Judge, judge_response

    if not options.url or not options.model:
        raise UserError("the protocol judge needs a judge: give --judge-url and --judge-model")
    path = options.cache or default_folder().parent / "judgements.jsonl"
    with GenerationCache(path) as cache:
        judge = Judge(_endpoint(options), cache=cache, sampling=_sampling(options.settings))
        expected = estimate(
            benchmark.judge or judge_response,
            _scorable(examples, responses),
            judge.cached_reply,
            price_in=options.price_in,
            price_out=options.price_out,
        )
        console.print(str(expected), highlight=False)
        if expected.requests:
            confirm(expected, options)
        yield judge
        judge.raise_if_refused()
        _print_usage(judge, options, console)


def confirm(expected: Estimate, options: JudgeOptions) -> None:
    """Ask for confirmation, unless --yes was given or the server is on this machine and has no price.

    Raises:
        UserError: standard input is not a terminal.
        typer.Abort: the user declined.
    """
    free = options.price_in is None and options.price_out is None and _is_local(options.url or "")
    if options.yes or free:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{expected}; this cannot be confirmed without a terminal: add --yes")
    typer.confirm("Send these requests?", abort=True, err=True)


def _scorable(
    examples: Sequence[Example], responses: Sequence[Response]
) -> Iterator[tuple[Example, Response]]:
    """Yield the pairs to be judged: each response to a question that has a gold answer."""
    asked = {example.id: example for example in examples if example.answer.strip()}
    return ((asked[one.id], one) for one in responses if one.id in asked)


def _endpoint(options: JudgeOptions) -> Endpoint:
    from eval.generate.client import Endpoint

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
    """Return the judge's default sampling, updated with the settings; null removes a key."""
    from eval.scoring.judge import SAMPLING

    merged: dict[str, Any] = {**SAMPLING, **parse_settings(settings, "--judge-setting")}
    return {name: value for name, value in merged.items() if value is not None}


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _print_usage(judge: Judge, options: JudgeOptions, console: Console) -> None:
    from eval.scoring.estimate import price

    used = judge.endpoint.usage
    cost = price(used.prompt_tokens, used.completion_tokens, options.price_in, options.price_out)
    tokens = f"{used.prompt_tokens:,} tokens in and {used.completion_tokens:,} out"
    paid = f", cost {cost:,.2f}" if cost is not None else ""
    replies = f"{used.requests:,} replies, {judge.cached:,} cached ones"
    console.print(f"judge: {replies}, {tokens}{paid}", highlight=False)
