"""What ``mm-cpgd eval`` prints at its end, and the page that it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from eval.comparison import compare
from eval.results import read_result
from eval.scoreboard import percent, print_comparison, print_scoreboard
from eval.settings import differences

if TYPE_CHECKING:
    from eval.running import Evaluation

# Title, folder and summary of a result.
Done = tuple[str, Path, Mapping[str, Any]]


def print_results(
    results: Sequence[Done],
    like: Path | None,
    before: Mapping[str, Any] | None,
) -> None:
    """Print the scoreboards, what weakens them, what controls cost, and where everything lies."""
    console = Console()
    for title, _, summary in results:
        print_scoreboard(_shown(title, summary), console)
    costs = _costs(results)
    if costs.row_count:
        console.print(costs)
    if like is not None and before is not None:
        control = before.get("control")
        _compare(
            console, like, before, next(one for one in results if one[2]["settings"]["control"] == control)
        )
    for title, folder, summary in results:
        done = summary["settings"]["generation"]
        console.print(
            f"{title}: {done['answers']:,} answers ({done['from_cache']:,} kept from before), "
            f"{done['seconds']:,.0f} s; {folder}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def _shown(title: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to print of a summary; of a control no groups, which ``summary.json`` has."""
    shown = {**summary, "benchmark": title}
    if "control" in summary:
        shown["protocols"] = {name: {**one, "groups": {}} for name, one in summary["protocols"].items()}
    return shown


def _costs(results: Sequence[Done]) -> Table:
    table = Table(title="Does it look? Accuracy with its own images and with others")
    for heading in ("control", "protocol"):
        table.add_column(heading)
    for heading in ("own", "control", "drop", "95 % interval", "n"):
        table.add_column(heading, justify="right")
    for title, _, summary in results:
        for name, cost in summary.get("control", {}).get("protocols", {}).items():
            spread = " … ".join(f"{100 * end:+.1f}" for end in cost["interval"] or ()) or "–"
            drop = "–" if cost["drop"] is None else f"{100 * cost['drop']:+.1f}"
            table.add_row(
                title,
                name,
                percent(cost["accuracy"]),
                percent(cost["control"]),
                drop,
                spread,
                f"{cost['n']:,}",
            )
            title = ""
    return table


def _compare(console: Console, like: Path, before: Mapping[str, Any], result: Done) -> None:
    """Say whether a repetition came out as what it repeats, and what was not as it was."""
    _, folder, summary = result
    stored = like.parent if like.name == "summary.json" else like
    comparison = compare(read_result(stored), read_result(folder))
    print_comparison(comparison, (str(stored), f"{folder} (again)"), console)
    for line in differences(before, summary["settings"]):
        console.print(f"! not as it was: {line}", style="yellow", markup=False, soft_wrap=True)


def write_results_page(
    output: Path,
    evaluations: Sequence[Evaluation],
    results: Sequence[Done],
) -> Path:
    """Write the page; controls stand beside what they are held against."""
    from eval.report import write_page

    labelled = []
    for _, folder, summary in results:
        control = summary["settings"]["control"]
        labelled.append((control or "as it is", folder))
    pictures = {
        one.benchmark.name: {example.id: example for example in one.examples}.get for one in evaluations
    }
    return write_page(output / "report.html", labelled, images=pictures)
