"""``mm-cpgd benchmarks``: the included benchmarks, and what is known of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from eval.declared.overview import Overview


def benchmarks_command(
    name: Annotated[
        str | None, typer.Argument(help="a name or path/to/file.yaml, for all that is known of it")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print table and notes as in docs/benchmarks.md")
    ] = False,
) -> None:
    """List the included benchmarks: rows, official scoring, and the number that papers report.

    Example: `mm-cpgd benchmarks mmmu`
    """
    from eval.benchmarks import benchmark_names
    from eval.declared import overview

    if markdown:
        typer.echo(overview.markdown(), nl=False)
    elif name is not None:
        _show(overview.overview(name))
    else:
        _list([overview.overview(one) for one in benchmark_names()])


def _list(every: list[Overview]) -> None:
    from eval.declared.overview import OFFICIAL

    table = Table(box=None, pad_edge=False)
    for column in ("name", "benchmark", "rows", "official", "reported"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    for one in every:
        table.add_row(one.name, one.title, f"{one.rows:,}" if one.rows else "", one.official, one.reported)
    console = Console()
    console.print(table)
    console.print()
    for word, meaning in OFFICIAL.items():
        console.print(f"official = {word}: {meaning}", style="dim", highlight=False)


def _show(one: Overview) -> None:
    from eval.declared.overview import OFFICIAL

    fields = {
        "benchmark": one.title,
        "source": one.source,
        "rows": f"{one.rows:,}" if one.rows else "",
        "kind of answer": one.kind,
        "official": f"{one.official}: {OFFICIAL[one.official]}",
        "reported": one.reported,
        "judge": "own prompt" if one.judge else "general prompt",
        "read from": "\n".join(one.read_from),
        "checked": one.checked,
        "notes": one.notes,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for title, value in fields.items():
        if value:
            table.add_row(title, value)
    Console().print(table)
