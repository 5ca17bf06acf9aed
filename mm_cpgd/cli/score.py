"""``mm-cpgd score`` and ``mm-cpgd compare``: stored predictions and results. No torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mm_cpgd.cli.common import INCOMPLETE, Limit, Split
from mm_cpgd.cli.judge import JudgeOptions, open_judge, with_judge
from mm_cpgd.errors import RunEnded

Folder = Annotated[Path, typer.Argument(help="a result folder, with summary.json and rows.jsonl")]
BenchmarkName = Annotated[
    str, typer.Option(help="a name (see mm-cpgd benchmarks), path/to/file.py or file.yaml")
]


@with_judge
def score_command(
    benchmark: BenchmarkName,
    predictions: Annotated[
        Path,
        typer.Option(
            help="file of the responses: of this project, the benchmark, VLMEvalKit, lmms-eval, or a table; "
            "see --id-column"
        ),
    ],
    output: Annotated[Path, typer.Option(help="folder for summary.json and rows.jsonl")],
    data: Annotated[
        str | None, typer.Option(help="the questions, in the benchmark's published layout; default: the hub")
    ] = None,
    split: Split = None,
    limit: Limit = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="official, verifier, judge, judge:NAME (general, whole, the benchmark's own), separated by "
            "commas; the first one is the headline"
        ),
    ] = "official",
    only_answered: Annotated[
        bool, typer.Option("--only-answered", help="exclude the questions without a response")
    ] = False,
    id_column: Annotated[
        str | None, typer.Option(help="column of the question's id, or a path such as doc.pid")
    ] = None,
    response_column: Annotated[str | None, typer.Option(help="column of the response's text")] = None,
    sample_column: Annotated[str | None, typer.Option(help="column of the sample number")] = None,
    question_column: Annotated[
        str | None, typer.Option(help="column of the question's text, to compare with the data's")
    ] = None,
    failure_mark: Annotated[
        list[str] | None,
        typer.Option(help="beginning of a text that stands for a failed request; may be repeated"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the result in the folder")] = False,
    *,
    options: JudgeOptions,
) -> None:
    """Score stored responses with the benchmark's official scoring, this project's verifier, or a judge.

    Example: `mm-cpgd score --benchmark mathvision --data test.jsonl --predictions answers.jsonl --output out`
    """
    from eval.scoring.judgement import lacks_reply
    from eval.scoring.protocols import is_judge
    from eval.scoring.stored import load_predictions, score_stored, write_scores
    from mm_cpgd.cli.results import print_scoreboard
    from mm_cpgd.tracking.progress import slow_bar

    console = Console()
    named = {
        "id": id_column, "response": response_column, "sample": sample_column, "question": question_column,
    }  # fmt: skip
    stored = load_predictions(
        benchmark,
        predictions,
        output,
        protocols=[name.strip() for name in protocol.split(",") if name.strip()],
        data=data,
        split=split,
        limit=limit,
        only_answered=only_answered,
        overwrite=overwrite,
        columns={field: column for field, column in named.items() if column},
        failure_marks=failure_mark or (),
    )
    progress, unjudged = partial(slow_bar, console), 0
    if any(map(is_judge, stored.protocols)):
        # The cost is confirmed before anything is scored, and not below a progress bar.
        with open_judge(
            options, stored.benchmark, stored.examples, stored.responses, console, stored.protocols
        ) as judge:
            rows = score_stored(stored, judge=judge, progress=progress)
            unjudged = sum(
                any(lacks_reply(verdict) for name, verdict in row.verdicts.items() if is_judge(name))
                for row in rows
            )
        summary = write_scores(stored, rows, output, judge=judge)
    else:
        summary = write_scores(stored, score_stored(stored, progress=progress), output)
    print_scoreboard(summary, console)
    console.print(f"summary: {output / 'summary.json'}\nrows: {output / 'rows.jsonl'}", soft_wrap=True)
    console.print(f"page with every response: mm-cpgd report {output}", soft_wrap=True)
    if unjudged:
        raise RunEnded(
            f"the judge gave no usable reply about {unjudged:,} responses, which have no score; the same "
            "command with --overwrite asks only for these again",
            INCOMPLETE,
        )


def compare_command(
    run_a: Folder,
    run_b: Folder,
    protocol: Annotated[str | None, typer.Option(help="protocol to compare; default: A's first one")] = None,
    output: Annotated[Path | None, typer.Option(help="write a page with the responses side by side")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the complete comparison to this file")
    ] = None,
) -> None:
    """Compare two results on the same questions: the difference, its uncertainty, and what changed.

    Example: `mm-cpgd compare scored/before scored/after --output changes.html`
    """
    from eval.comparison import compare
    from mm_cpgd.cli.results import print_comparison

    console = Console()
    comparison = compare(run_a, run_b, protocol)
    # Before anything is printed: a reader such as head closes the pipe, which ends the command.
    written = []
    if json_file:
        from mm_cpgd.cli.common import write_json

        write_json(json_file, {"a": str(run_a), "b": str(run_b), **comparison.as_dict()})
        written.append(f"JSON: {json_file}")
    if output:
        from eval.report import write_page

        page = write_page(output, [(f"A {run_a.name}", run_a), (f"B {run_b.name}", run_b)])
        written.append(f"page: {page}")
    print_comparison(comparison, (str(run_a), str(run_b)), console)
    for line in written:
        console.print(line, soft_wrap=True)
