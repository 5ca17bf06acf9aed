"""Tables of a study of methods, as a page of their own or between marks of an existing one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.study.conditions import CONDITIONS, condition_named
from mm_cpgd.study.grid import config_of, grid_from, rate_text
from mm_cpgd.study.page import percent, points, share
from mm_cpgd.tracking.files import write_lines

# Marks between which an existing page holds the tables. Existing pages hold them: do not change their text.
MARKS = ("<!-- tables of mm-cpgd study methods -->", "<!-- end of the tables -->")


def write_methods(page: Path, summary: Mapping[str, Any]) -> None:
    """Write the tables: between the marks of an existing page, or as a new page.

    Raises:
        UserError: the page exists without the marks.
    """
    new = "\n".join([MARKS[0], "", tables(summary), "", MARKS[1]])
    if not page.is_file():
        write_lines(page, [new])
        return
    before, mark, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not mark or not end:
        raise UserError(
            f"{page} has no place for the tables; put the lines {MARKS[0]} and {MARKS[1]} into it"
        )
    write_lines(page, [(before + new + after).rstrip("\n")])


def tables(summary: Mapping[str, Any]) -> str:
    """Return what was run, the two tables of the plain recipes, and those of each grid of conditions."""
    plain = [name for name in summary["methods"] if "@" not in name]
    parts = [_what(summary)]
    parts += [_table("Equal iterations", "iterations", plain, summary)]
    parts += [_table("Equal tokens", "tokens", plain, summary)]
    for grid in CONDITIONS.values():
        ends = tuple(f"@{condition.name}" for condition in grid.conditions)
        own = [name for name in summary["methods"] if name.endswith(ends)]
        own = [name for name in own if grid.any_recipe or name.partition("@")[0] in grid.recipes]
        if own:
            shown = list(dict.fromkeys(each for name in own for each in (name.partition("@")[0], name)))
            title = f"{grid.question}, equal iterations"
            parts.append(_table(title, "iterations", shown, summary, by_score=False))
    return "\n\n".join(parts)


def _what(summary: Mapping[str, Any]) -> str:
    grid, runs = grid_from(dict(summary["grid"])), summary["runs"]
    config = config_of(grid.trials()[0], Path("unused"), grid.changes)
    rates = ", ".join(map(rate_text, grid.rates))
    done = f"{runs['done']} of {runs['planned']} runs, {runs['cpu_seconds'] / 3600:.1f} core-hours."
    if len(runs["codes"]) > 1:
        done += f" They were made by {len(runs['codes'])} versions of the training code."
    return "\n".join(
        [
            f"{done} Each: {config.training.iterations} iterations of {config.rollout.prompts} prompts × "
            f"{config.rollout.completions} completions of at most {config.rollout.max_new_tokens} tokens, "
            f"{', '.join(map(str, grid.updates))} updates each; learning rates {rates}; "
            f"seeds {', '.join(map(str, grid.seeds))}.",
            *([f"Changed: {'; '.join(f'`{change}`' for change in grid.changes)}."] if grid.changes else []),
            "Accuracy is held-out and greedy, at the learning rate with the highest mean over the other "
            "seeds; differences are paired by seed; intervals are 95 %, over seeds. Tokens, seconds and "
            "collapses are of the runs at all rates.",
        ]
    )


def _table(
    title: str, key: str, names: Sequence[str], summary: Mapping[str, Any], by_score: bool = True
) -> str:
    methods = summary["methods"]
    if by_score:
        names = sorted(names, key=lambda name: -(methods[name][key]["accuracy"]["mean"] or 0.0))
    head = [
        "recipe",
        "accuracy, %",
        "difference, points",
        "to",
        "rates chosen",
        "tokens sampled",
        "CPU seconds",
        "collapsed",
    ]
    rows = [_row(name, key, methods[name]) for name in names]
    note = ""
    if key == "tokens":
        note = (
            f"Accuracy once a run has sampled {summary['budget']:,.0f} tokens, the median of "
            f"`{summary['baseline']}`'s runs, interpolated between evaluations. Runs that sampled fewer "
            "count with their end.\n\n"
        )
        head[5] = "runs that sampled fewer"
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return f"### {title}\n\n{note}" + "\n".join(lines)


def _label(name: str) -> str:
    recipe, at, condition = name.partition("@")
    return f"`{recipe}`, {condition_named(condition).label}" if at else f"`{recipe}`"


def _row(name: str, key: str, method: Mapping[str, Any]) -> list[str]:
    found, same = method[key], method["against"] == name
    total = method["collapse"]["total"]
    return [
        _label(name),
        percent(found["accuracy"]),
        "" if same else points(found["beside"]),
        "" if same else _label(method["against"]),
        ", ".join(map(rate_text, found["rates"])) or "–",
        f"{method['short']} of {total}" if key == "tokens" else f"{method['sampled']:,.0f}",
        f"{method['cpu_seconds']:.0f}",
        share(method["collapse"]),
    ]
