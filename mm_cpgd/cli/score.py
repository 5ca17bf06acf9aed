"""``mm-cpgd score`` and ``mm-cpgd compare``: stored answers and results. Nothing here loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mm_cpgd.cli.common import (
    JudgeCache,
    JudgeConcurrency,
    JudgeKeyEnv,
    JudgeModel,
    JudgePerMinute,
    JudgePriceIn,
    JudgePriceOut,
    JudgeRetries,
    JudgeSetting,
    JudgeTimeout,
    JudgeUrl,
    Limit,
    Split,
    Yes,
)

Folder = Annotated[Path, typer.Argument(help="a result folder, with summary.json and rows.jsonl")]
BenchmarkName = Annotated[str, typer.Option(help="a name such as mathvision, or path/to/file.py of your own")]


def score_command(
    benchmark: BenchmarkName,
    predictions: Annotated[
        Path, typer.Option(help="the answers: rows of id and response, or the benchmark's own output format")
    ],
    output: Annotated[Path, typer.Option(help="folder for summary.json and rows.jsonl")],
    data: Annotated[
        str | None, typer.Option(help="the questions, as the benchmark publishes them; default: the hub")
    ] = None,
    split: Split = None,
    limit: Limit = None,
    protocol: Annotated[
        str,
        typer.Option(help="official, verifier, judge, or several with commas; the first is the rows' own"),
    ] = "official",
    only_answered: Annotated[
        bool, typer.Option("--only-answered", help="leave out the questions that have no answer")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the result in the folder")] = False,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_key_env: JudgeKeyEnv = None,
    judge_per_minute: JudgePerMinute = None,
    judge_concurrency: JudgeConcurrency = 8,
    judge_timeout: JudgeTimeout = 120.0,
    judge_retries: JudgeRetries = 5,
    judge_setting: JudgeSetting = None,
    judge_price_in: JudgePriceIn = None,
    judge_price_out: JudgePriceOut = None,
    judge_cache: JudgeCache = None,
    yes: Yes = False,
) -> None:
    """Score stored answers as the benchmark scores itself, by this project's verifier, or by a judge.

    Example: `mm-cpgd score --benchmark mathvision --data test.jsonl --predictions answers.jsonl --output out`
    """
    from mm_cpgd.cli.judge import JudgeOptions
    from mm_cpgd.cli.rescore import rescore
    from mm_cpgd.cli.results import print_scoreboard

    console = Console()
    judge = JudgeOptions(
        judge_url, judge_model, judge_key_env, judge_per_minute, judge_concurrency, judge_timeout,
        judge_retries, judge_setting or (), judge_price_in, judge_price_out, judge_cache, yes,
    )  # fmt: skip
    summary = rescore(
        benchmark,
        predictions,
        output,
        protocols=[name.strip() for name in protocol.split(",") if name.strip()],
        data=data,
        split=split,
        limit=limit,
        only_answered=only_answered,
        overwrite=overwrite,
        judge=judge,
        console=console,
    )
    print_scoreboard(summary, console)
    console.print(f"summary: {output / 'summary.json'}\nrows: {output / 'rows.jsonl'}", soft_wrap=True)
    console.print(f"as a page, with every answer: mm-cpgd report {output}", soft_wrap=True)


def compare_command(
    run_a: Folder,
    run_b: Folder,
    protocol: Annotated[str | None, typer.Option(help="by which to compare; default: A's first one")] = None,
    output: Annotated[
        Path | None, typer.Option(help="write a page with the answers of both, side by side")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write everything to this file too")
    ] = None,
) -> None:
    """Compare two results of the same questions: the difference, how sure it is, and what changed sides.

    Example: `mm-cpgd compare scored/before scored/after --output changes.html`
    """
    from eval.compare import compare
    from eval.results import read_result
    from mm_cpgd.cli.results import print_comparison

    console = Console()
    comparison = compare(read_result(run_a), read_result(run_b), protocol)
    print_comparison(comparison, (str(run_a), str(run_b)), console)
    if json_file:
        from mm_cpgd.cli.reward_text import write_json

        write_json(json_file, {"a": str(run_a), "b": str(run_b), **comparison.as_dict()})
        console.print(f"all of it: {json_file}", soft_wrap=True)
    if output:
        from eval.report import write_page

        page = write_page(output, [(f"A {run_a.name}", run_a), (f"B {run_b.name}", run_b)])
        console.print(f"page: {page}", soft_wrap=True)
