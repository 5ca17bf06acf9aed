"""Terminal output of results and comparisons, and the page with every response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.comparison import Change, Comparison, Difference, compare
from eval.reference.against import reference_lines
from eval.settings import repetition_differences
from rewards.messages import short

if TYPE_CHECKING:
    from eval.preparation import Evaluation


# Limits of what is printed: values of a dimension, and changed responses. The files have all of them.
GROUP_VALUES, CHANGES = 20, 10


def print_scoreboard(summary: Mapping[str, Any], console: Console) -> None:
    """Print the accuracies of one result in percent, by protocol and group, and its flags."""
    table = _table("protocol", "n", "accuracy", "95 % interval", "unparsed", "truncated")
    table.title = Text(f"{summary['benchmark']}, in percent")
    truncated = summary["truncated"]
    for name, protocol in summary["protocols"].items():
        overall = protocol["overall"]
        table.add_row(
            Text(name),
            f"{overall['total']:,}",
            percent(overall["accuracy"]),
            _interval(overall["interval"]),
            percent(protocol["unparsed"]["share"]),
            percent(truncated["share"]) if truncated else "unknown",
        )
    console.print(table)
    _print_metrics(summary["protocols"], console)
    _print_samples(summary["samples"], console)
    _print_groups(summary["protocols"], console)
    for flag in summary["flags"]:
        console.print(Text(f"! {flag}"), style="yellow", soft_wrap=True)
    for line in reference_lines(summary):
        console.print(Text(line), style="cyan", soft_wrap=True)


def _table(first: str, *numbers: str) -> Table:
    """Return a table that wraps its first column on a narrow screen, never its numbers."""
    table = Table(first, title_justify="left")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _print_metrics(protocols: Mapping[str, Any], console: Console) -> None:
    """Print the benchmark's own metrics: shares in percent, and the numbers of groups that they cover."""
    names = list(dict.fromkeys(name for one in protocols.values() for name in one["metrics"]))
    cells = {name: [_metric(one["metrics"].get(name)) for one in protocols.values()] for name in names}
    if any(any(row) for row in cells.values()):
        table = _table("metric", *protocols)
        for name, row in cells.items():
            if any(row):
                table.add_row(Text(name), *row)
        console.print(table)


def _metric(value: Any) -> str:
    """Return a share in percent or a count; nothing for nested metrics, which the page has."""
    if isinstance(value, float):
        return percent(value) if 0 <= value <= 1 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else ""


def _print_samples(samples: Mapping[str, Any] | None, console: Console) -> None:
    if samples:
        shares = {f"mean@{samples['k']}": samples["accuracy"]}
        shares |= {f"pass@{k}": share for k, share in samples["pass_at_k"].items()}
        shares[f"maj@{samples['k']}"] = samples["maj_at_k"]
        # Results of former versions have none.
        found = samples.get("intervals", {})
        intervals = [found.get("accuracy"), *found.get("pass_at_k", {}).values(), found.get("maj_at_k")]
        told = [
            f"{name} {percent(share)}"
            + (f" ({_interval(interval)})" if interval and share is not None else "")
            for (name, share), interval in zip_longest(shares.items(), intervals)
        ]
        line = "  ".join(told)
        if (complete := samples.get("complete", samples["questions"])) < samples["questions"]:
            line += f" ({complete:,} of {samples['questions']:,} questions have all {samples['k']} scores)"
        console.print(f"{samples['k']} samples per question: {line}", soft_wrap=True)


def _print_groups(protocols: Mapping[str, Any], console: Console) -> None:
    """Print n of the first protocol, and every protocol's accuracy with its interval."""
    first = next(iter(protocols.values()))["groups"] if protocols else {}
    groups = {
        dimension: {
            value: (
                f"{group['total']:,}",
                *(_share(one["groups"][dimension][value]) for one in protocols.values()),
            )
            for value, group in values.items()
        }
        for dimension, values in first.items()
    }
    if groups:
        table = _table("group", "n", *protocols)
        left = _add_groups(table, groups)
        console.print(table)
        if left:
            console.print(Text(f"… and by {', '.join(left)}: in summary.json"), soft_wrap=True)


def _add_groups(table: Table, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Add the dimensions that have few values, and return the names of the others."""
    left = []
    for dimension, values in groups.items():
        if len(values) > GROUP_VALUES:
            left.append(f"{dimension} ({len(values):,} values)")
            continue
        table.add_section()
        table.add_row(Text(dimension, style="bold"))
        for value, cells in values.items():
            table.add_row(Text(f"  {value}"), *cells)
    return left


def print_comparison(comparison: Comparison, labels: tuple[str, str], console: Console) -> None:
    """Print the difference of two results, overall and by group, the changed responses, and warnings."""
    console.print(Text(f"A = {labels[0]}\nB = {labels[1]}"), soft_wrap=True)
    table = _table("group", "n", "A", "B", "B − A", "95 % interval", "changed")
    table.title = Text(f"{comparison.benchmark}, {comparison.protocol}, in percent")
    table.add_row("all", *_cells(comparison.overall))
    groups = {
        dimension: {value: _cells(difference) for value, difference in values.items()}
        for dimension, values in comparison.groups.items()
    }
    left = _add_groups(table, groups)
    console.print(table)
    if left:
        console.print(Text(f"… and by {', '.join(left)}: --json FILE has them"), soft_wrap=True)
    console.print(f"p = {comparison.overall.p:.3g} ({comparison.method})")
    _print_changes(comparison.changed, console)
    for warning in comparison.warnings:
        console.print(Text(f"! {warning}"), style="yellow", soft_wrap=True)


def _cells(difference: Difference) -> tuple[str, ...]:
    low, high = difference.interval
    return (
        f"{difference.total:,}",
        percent(difference.a),
        percent(difference.b),
        f"{100 * difference.difference:+.1f}",
        f"{100 * low:+.1f} … {100 * high:+.1f}",
        f"+{difference.gained:,} −{difference.lost:,}",
    )


def _print_changes(changed: Sequence[Change], console: Console) -> None:
    gained = sum(change.gained for change in changed)
    console.print(f"{len(changed):,} responses changed: {gained:,} gained, {len(changed) - gained:,} lost")
    for change in changed[:CHANGES]:
        sample = f" (sample {change.sample})" if change.sample else ""
        a, b, gold = (_short(text) for text in (change.extracted_a, change.extracted_b, change.answer))
        line = f"  {'gained' if change.gained else 'lost  '} {change.id}{sample}: {a} → {b}, gold {gold}"
        console.print(Text(line), soft_wrap=True)
    if len(changed) > CHANGES:
        console.print(f"  … and {len(changed) - CHANGES:,} more; --json FILE has them all")


def percent(share: float | None) -> str:
    """Return a share in percent, with one decimal; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}"


def _share(group: Mapping[str, Any]) -> str:
    return f"{percent(group['accuracy'])} ({_interval(group['interval'])})"


def _interval(interval: Sequence[float]) -> str:
    return f"{percent(interval[0])} – {percent(interval[1])}"


def _short(text: str | None) -> str:
    return "nothing" if text is None else repr(short(text, 40))


# Title, folder and summary of a result.
Done = tuple[str, Path, Mapping[str, Any]]


def print_results(
    results: Sequence[Done],
    like: Path | None,
    before: Mapping[str, Any] | None,
) -> None:
    """Print the scoreboards, their flags, the accuracy drops of controls, and the result folders."""
    console = Console()
    for title, _, summary in results:
        print_scoreboard(_shown(title, summary), console)
    drops = _control_drops(results)
    if drops.row_count:
        console.print(drops)
    if like is not None and before is not None:
        control = before.get("control")
        again = [one for one in results if one[2]["settings"]["control"] == control]
        # Of a control there may be no result.
        for one in again[:1]:
            _print_repetition(console, like, before, one)
    for title, folder, summary in results:
        done = summary["settings"]["generation"]
        console.print(
            f"{title}: {done['answers']:,} responses ({done['from_cache']:,} from the cache), "
            f"{done['seconds']:,.0f} s; {folder}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def _shown(title: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to print of a summary: of a control no groups, which are in ``summary.json``."""
    shown = {**summary, "benchmark": title}
    if "control" in summary:
        shown["protocols"] = {name: {**one, "groups": {}} for name, one in summary["protocols"].items()}
    return shown


def _control_drops(results: Sequence[Done]) -> Table:
    table = Table(title="Controls: accuracy with the original and with replaced images")
    for heading in ("control", "protocol"):
        table.add_column(heading)
    for heading in ("original", "control", "drop", "95 % interval", "n"):
        table.add_column(heading, justify="right")
    for title, _, summary in results:
        for name, found in summary.get("control", {}).get("protocols", {}).items():
            interval = " … ".join(f"{100 * end:+.1f}" for end in found["interval"] or ()) or "–"
            drop = "–" if found["drop"] is None else f"{100 * found['drop']:+.1f}"
            if found["accuracy"] == 0:
                drop, interval = "nothing to lose", "–"
            table.add_row(
                title,
                name,
                percent(found["accuracy"]),
                percent(found["control"]),
                drop,
                interval,
                f"{found['n']:,}",
            )
            title = ""
    return table


def _print_repetition(console: Console, like: Path, before: Mapping[str, Any], result: Done) -> None:
    """Print the comparison of a result with its repetition, and the conditions that differ."""
    _, folder, summary = result
    stored = like.parent if like.name == "summary.json" else like
    comparison = compare(stored, folder)
    print_comparison(comparison, (str(stored), f"{folder} (again)"), console)
    for line in repetition_differences(before, summary["settings"]):
        console.print(f"! changed: {line}", style="yellow", markup=False, soft_wrap=True)


def write_results_page(
    output: Path,
    evaluations: Sequence[Evaluation],
    results: Sequence[Done],
) -> Path:
    """Write the page; controls are shown next to the result that they are compared with."""
    from eval.report import write_page

    labelled = []
    for _, folder, summary in results:
        control = summary["settings"]["control"]
        labelled.append((control or "original", folder))
    images = {
        one.benchmark.name: {example.id: example for example in one.examples}.get for one in evaluations
    }
    return write_page(output / "report.html", labelled, images=images)
