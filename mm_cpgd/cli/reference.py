"""``mm-cpgd reference``: published numbers, and results beside them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mm_cpgd.cli.common import result_folders
from mm_cpgd.errors import UserError

if TYPE_CHECKING:
    from eval.reference.against import Against, Comparison
    from eval.reference.tables import Published


def reference_command(
    results: Annotated[
        list[Path] | None, typer.Argument(help="results, or folders of results, to compare")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="hub name or part of a name; with results, what their model is")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="name of a benchmark, such as mathvista")] = None,
    table: Annotated[
        list[Path] | None, typer.Option(help="YAML file of a further published table; repeat for several")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write what is printed to this file")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="print all as docs/reference.md")] = False,
) -> None:
    """List published numbers of models, with rule, settings and source; compare results with them.

    Example: `mm-cpgd reference --model Qwen/Qwen2.5-VL-7B-Instruct --benchmark mathvista`
    """
    from eval.reference.tables import load_published

    published = load_published(table or ())
    console = Console()
    if markdown:
        _print_page(published)
    elif results:
        content = [_compare(folder, published, model, console) for folder in result_folders(results)]
        _write(json_file, content, console)
    else:
        chosen = _chosen(published, model, benchmark)
        _print_numbers(chosen, console)
        _write(json_file, [_plain(one) for one in chosen], console)


def _print_page(published: Sequence[Published]) -> None:
    from eval.reference.page import reference_page
    from eval.reference.tables import load_ours

    print(reference_page(published, load_ours()), end="")


def _write(path: Path | None, content: Any, console: Console) -> None:
    if path is not None:
        from mm_cpgd.cli.common import write_json

        write_json(path, content)
        console.print(f"JSON: {path}", markup=False, soft_wrap=True)


def _chosen(published: Sequence[Published], model: str | None, benchmark: str | None) -> list[Published]:
    """Return the numbers of the named model, else of those whose names contain the text, on the benchmark."""
    from eval.reference.names import find_model
    from eval.reference.tables import same_benchmark
    from rewards.messages import nearest

    chosen = list(published)
    if model is not None:
        names = list(dict.fromkeys(one.model for one in published))
        found = find_model(model, names)
        wanted = [found] if found else [name for name in names if model.lower() in name.lower()]
        if not wanted:
            close = get_close_matches(model, names, 3, 0.4) or names[:3]
            raise UserError(f"no published number of {model!r}; among the models are {', '.join(close)}")
        chosen = [one for one in chosen if one.model in wanted]
    if benchmark is not None:
        known = sorted({one.benchmark for one in chosen})
        chosen = [one for one in chosen if same_benchmark(one.benchmark, benchmark)]
        if not chosen:
            raise UserError(f"no published number on {benchmark!r}: {nearest(benchmark, known)}")
    return chosen


def _print_numbers(published: Sequence[Published], console: Console) -> None:
    from eval.reference.page import source_letters

    letters = source_letters(published)
    table = _table("model", "benchmark", "split", "published", "measured by", "source", title="in percent")
    for one in sorted(published, key=lambda one: (one.benchmark, one.model.lower(), one.number)):
        origin = {"own run": "the source's authors", "taken over": "others", "not stated": "not stated"}
        table.add_row(
            *map(Text, (one.model, one.benchmark, one.split or "–", one.shown(), origin[one.origin])),
            letters[one.source],
        )
    console.print(table)
    _print_ours(published, console)
    _print_sources(published, letters, console)


def _print_ours(published: Sequence[Published], console: Console) -> None:
    """Print what this project measured of the listed models and benchmarks."""
    from eval.reference.tables import load_ours, same_benchmark

    for own in load_ours():
        if any(one.model == own.model and same_benchmark(one.benchmark, own.benchmark) for one in published):
            low, high = own.interval
            number = f"{own.number:.1f} ({low:.1f} – {high:.1f}, {own.protocol})"
            console.print(Text(f"here: {own.model} on {own.benchmark} {number}"), soft_wrap=True)


def _print_sources(published: Sequence[Published], letters: dict[str, str], console: Console) -> None:
    from eval.reference.page import sources_of

    for line in sources_of(published, letters):
        console.print(Text(line), soft_wrap=True)


def _compare(
    folder: Path, published: Sequence[Published], model: str | None, console: Console
) -> dict[str, Any]:
    """Print one result beside the published numbers; return what was printed."""
    from eval.reference.against import compare_with_published
    from eval.results import read_result

    summary = read_result(folder).summary
    comparison = compare_with_published(summary, published, model)
    console.print(Text(f"{folder}: {summary['benchmark']}"), soft_wrap=True)
    if comparison.rows:
        _print_comparison(comparison, console)
    else:
        console.print(Text(f"  {_why_none(comparison, summary, model)}"), soft_wrap=True)
    rows = [{**asdict(row), "published": _plain(row.published)} for row in comparison.rows]
    found = None if comparison.found is None else asdict(comparison.found)
    return {"result": str(folder), "model": found, "comparisons": rows}


def _why_none(comparison: Comparison, summary: Any, model: str | None) -> str:
    from eval.reference.names import model_name

    if comparison.found is None:
        name = model or model_name(summary["settings"])
        what = f"no published number of {name!r}" if name else "the result does not store its model's name"
        return f"{what}; say which it is: --model NAME (mm-cpgd reference lists the names)"
    if summary["settings"].get("control"):
        return "a control with replaced images is not compared with published numbers"
    return f"no published number of {comparison.found.model} on {summary['benchmark']}"


def _print_comparison(comparison: Comparison, console: Console) -> None:
    from eval.reference.page import source_letters

    found = comparison.found
    assert found is not None
    console.print(Text(f"  model: {found.model} ({found.by})"), soft_wrap=True)
    if found.derived:
        console.print(Text("  ! if it was trained since, its numbers differ"), style="yellow")
    letters = source_letters([row.published for row in comparison.rows])
    table = _table(
        "protocol", "here", "95 % interval", "published", "difference", "in the interval", "source"
    )
    for row in comparison.rows:
        table.add_row(*map(Text, (*_cells(row), letters[row.published.source])))
    console.print(table)
    for row in {row.published: row for row in comparison.rows}.values():
        _print_behind(row, letters[row.published.source], console)


def _cells(row: Against) -> tuple[str, ...]:
    shown = row.published.shown()
    if row.number is None or row.difference is None:
        others = ", ".join(f"{name} {value:.1f}" for name, value in row.others.items())
        return row.protocol, others or "–", "–", shown, "–", "–"
    interval = "–" if row.interval is None else f"{row.interval[0]:.1f} – {row.interval[1]:.1f}"
    inside = {None: "–", True: "yes", False: "no"}[row.inside]
    return row.protocol, f"{row.number:.1f}", interval, shown, f"{row.difference:+.1f}", inside


def _print_behind(row: Against, letter: str, console: Console) -> None:
    """Print source, rule and settings of a published number."""
    one = row.published
    split = f" ({one.split})" if one.split else ""
    line = f"  {letter}: {one.shown()}{split}, {one.source}, {one.url}; rule: {one.rule}"
    console.print(Text(line), soft_wrap=True)
    if one.value is None:
        console.print(Text("    the source does not say which of the benchmark's numbers it is"))
    for line in filter(None, (one.note, one.about)):
        console.print(Text(f"    {line}"), soft_wrap=True)
    for line in row.differs:
        console.print(Text(f"    ! {line}"), style="yellow", soft_wrap=True)
    if row.unstated:
        unstated = ("prompt" if name == "markers" else name for name in row.unstated)
        console.print(Text(f"    not stated by the source: {', '.join(unstated)}"), soft_wrap=True)


def _plain(one: Published) -> dict[str, Any]:
    return {**asdict(one), "settings": one.settings.stated()}


def _table(*headings: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
