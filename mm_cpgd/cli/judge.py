"""Options of an LLM judge, and its construction from them: cost estimate, confirmation, cache. No torch."""

from __future__ import annotations

import functools
import inspect
import ipaddress
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints
from urllib.parse import urlsplit

import typer
from rich.console import Console

from mm_cpgd.cli.common import parse_settings
from mm_cpgd.errors import UserError

if TYPE_CHECKING:
    from data import Example
    from eval.benchmark import Benchmark, ByJudge, Response
    from eval.generate.client import Endpoint
    from eval.scoring.budget import Budget
    from eval.scoring.estimate import Estimate
    from eval.scoring.judge import Judge

_PANEL = "Judge"


def _option(name: str, text: str, **more: Any) -> Any:
    """Return a command's option, in the help's panel of the judge."""
    return typer.Option(name, help=text, rich_help_panel=_PANEL, **more)


@dataclass(frozen=True)
class JudgeOptions:
    """Options of the judge on the command line (``with_judge``).

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
        budget: bound of the cost; it takes the place of a confirmation.
        cache: file of cached replies; None for the one in the user's cache folder.
        yes: skip the confirmation.
    """

    url: Annotated[
        str | None, _option("--judge-url", "OpenAI-compatible server, such as http://localhost:8000/v1")
    ] = None
    model: Annotated[str | None, _option("--judge-model", "its name on the server")] = None
    key_env: Annotated[
        str | None, _option("--judge-key-env", "environment variable with the server's key")
    ] = None
    per_minute: Annotated[
        float | None, _option("--judge-per-minute", "maximum number of requests per minute")
    ] = None
    concurrency: Annotated[
        int, _option("--judge-concurrency", "maximum number of concurrent requests", min=1)
    ] = 8
    timeout: Annotated[
        float, _option("--judge-timeout", "seconds until a request without a complete reply is abandoned")
    ] = 120.0
    retries: Annotated[int, _option("--judge-retries", "retries of a failed request", min=0)] = 5
    settings: Annotated[
        list[str] | None,
        _option(
            "--judge-setting",
            "sampling key=value, such as max_tokens=2000; the value null removes the key; repeatable",
        ),
    ] = None
    price_in: Annotated[
        float | None, _option("--judge-price-in", "price of a million prompt tokens", min=0)
    ] = None
    price_out: Annotated[
        float | None, _option("--judge-price-out", "price of a million completion tokens", min=0)
    ] = None
    budget: Annotated[
        float | None,
        _option(
            "--judge-budget", "ask no more when the requests would cost more, in the currency of the prices"
        ),
    ] = None
    cache: Annotated[
        Path | None,
        _option("--judge-cache", "file of cached replies; default: in the user's cache folder"),
    ] = None
    yes: Annotated[bool, _option("--yes", "call the judge without confirmation")] = False


def with_judge(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``JudgeOptions``; it gets them as its keyword ``options``."""
    signature = inspect.signature(command, eval_str=True)
    hints = get_type_hints(JudgeOptions, include_extras=True)
    own = [one for one in signature.parameters.values() if one.name != "options"]
    names = {f"judge_{field.name}": field for field in fields(JudgeOptions)}
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for name, field in names.items()
    ]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = {field.name: given.pop(name) for name, field in names.items()}
        command(**given, options=JudgeOptions(**chosen))

    # What typer reads.
    wrapped.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in (*own, *added)}
    return wrapped


def check_judge(options: JudgeOptions) -> None:
    """Check, before responses are generated, that a judge can be asked without anybody to confirm it.

    Raises:
        UserError: no server is named, a price is unlimited and unconfirmed, or the budget cannot be used.
    """
    _check_named(options)
    make_budget(options)
    if not (options.yes or options.budget is not None or _is_free(options)):
        raise UserError(
            "the judge is asked when the responses are there, without a confirmation: bound its cost by "
            "--judge-budget with --judge-price-in and --judge-price-out, or add --yes"
        )


def _check_named(options: JudgeOptions) -> None:
    if not options.url or not options.model:
        raise UserError("the protocol judge needs a judge: give --judge-url and --judge-model")


def make_budget(options: JudgeOptions) -> Budget | None:
    """Return the budget of the options, None if there is none. Raises ``UserError``."""
    from eval.scoring.budget import Budget

    if options.budget is None:
        return None
    return Budget(options.budget, options.price_in, options.price_out)


@contextmanager
def judge_session(options: JudgeOptions, console: Console) -> Iterator[Judge]:
    """Open a judge and its cache; at the end print its usage.

    Raises:
        UserError: no server is named; at the end: the server refused address, model or key of every request.
        DataError: the cache cannot be used.
    """
    from eval.generate.cache import GenerationCache, default_folder
    from eval.scoring.judge import Judge

    _check_named(options)
    budget = make_budget(options)
    path = options.cache or default_folder().parent / "judgements.jsonl"
    with GenerationCache(path) as cache:
        judge = Judge(_endpoint(options), cache=cache, sampling=_sampling(options.settings), budget=budget)
        yield judge
        judge.raise_if_refused()
        _print_usage(judge, options, console)


@contextmanager
def open_judge(
    options: JudgeOptions,
    benchmark: Benchmark,
    examples: Sequence[Example],
    responses: Sequence[Response],
    console: Console,
    protocols: Sequence[str] = ("judge",),
) -> Iterator[Judge]:
    """Open a judge for these responses, after an estimate and a confirmation; at the end print its usage.

    The estimate covers those of the ``protocols`` that need a judge.

    Raises:
        UserError: no server is named, or confirmation is impossible; at the end: the server refused address,
            model or key of every request.
        DataError: the cache cannot be used.
        typer.Abort: the user declined.
    """
    from eval.scoring.estimate import scorable
    from eval.scoring.protocols import judges_of

    with judge_session(options, console) as judge:
        judges = judges_of(benchmark, protocols).values()
        expected = print_estimate(judges, scorable(examples, responses), judge, options, console)
        if expected.requests and judge.budget is None:
            confirm(expected, options)
        yield judge


def print_estimate(
    judges: Collection[ByJudge],
    pairs: Iterable[tuple[Example, Response]],
    judge: Judge,
    options: JudgeOptions,
    console: Console,
) -> Estimate:
    """Print the estimate of the requests for these pairs, and whether it exceeds what is left of the budget.

    Returns:
        The estimate.
    """
    from eval.scoring.estimate import estimate

    expected = estimate(
        judges, pairs, judge.cached_reply, price_in=options.price_in, price_out=options.price_out
    )
    console.print(str(expected), highlight=False, soft_wrap=True)
    budget = judge.budget
    if budget is not None and expected.cost is not None and expected.cost > budget.limit - budget.spent:
        console.print(
            f"! {budget.limit - budget.spent:,.2f} of the judge's budget of {budget.limit:g} are left: what "
            "does not fit is not judged",
            style="yellow", soft_wrap=True,
        )  # fmt: skip
    return expected


def confirm(expected: Estimate, options: JudgeOptions) -> None:
    """Ask for confirmation, unless --yes was given or the server is on this machine and has no price.

    Raises:
        UserError: standard input is not a terminal.
        typer.Abort: the user declined.
    """
    if options.yes or _is_free(options):
        return
    if not sys.stdin.isatty():
        raise UserError(f"{expected}; this cannot be confirmed without a terminal: add --yes")
    typer.confirm("Send these requests?", abort=True, err=True)


def _is_free(options: JudgeOptions) -> bool:
    return options.price_in is None and options.price_out is None and _is_local(options.url or "")


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


def _sampling(settings: Sequence[str] | None) -> dict[str, Any]:
    """Return the judge's default sampling, updated with the settings; null removes a key."""
    from eval.scoring.judge import SAMPLING

    merged: dict[str, Any] = {**SAMPLING, **parse_settings(settings or (), "--judge-setting")}
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
    console.print(f"judge: {replies}, {tokens}{paid}", highlight=False, soft_wrap=True)
