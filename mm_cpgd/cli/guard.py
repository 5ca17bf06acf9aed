"""``mm-cpgd guard``: what the guard sees in stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def guard_command(
    runs: Annotated[list[Path] | None, typer.Argument(help="run folders, or metrics.jsonl files")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write all alarms to this file too")
    ] = None,
) -> None:
    """Replay the guard over stored runs: its alarms, and how early they came. Without a run: list the signs.

    Example: `mm-cpgd guard runs/quickstart runs/too_fast`
    """
    from mm_cpgd.guard.watch import replayed

    console = Console()
    if not runs:
        console.print(_signs())
        return
    found = [replayed(run) for run in runs]
    for one in found:
        for alarm in one.alarms:
            console.print(f"{one.name}: {alarm.line}", soft_wrap=True, highlight=False, markup=False)
    console.print(_overview([one.as_dict() for one in found]))
    if json_file:
        from mm_cpgd.cli.reward_text import write_json

        write_json(json_file, {"runs": [one.as_dict() for one in found]})
        console.print(f"all of it: {json_file}", soft_wrap=True)


def _signs() -> Table:
    from mm_cpgd.guard.signs import SIGNS

    table = Table(title="what the guard looks for (* heeded by rollback and stop)")
    for heading in ("sign", "seen as", "probably", "to mend"):
        table.add_column(heading)
    for sign in SIGNS:
        seen = f"{sign.test}" + (f", with reward/mean {sign.fall:g} σ down" if sign.fall else "")
        table.add_row(sign.name + "*" * sign.acts, seen, sign.cause, sign.knob)
    return table


def _overview(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="first alarm that rollback and stop heed")
    for heading in ("run", "iterations", "alarm", "sign", "eval/accuracy halved", "iterations before"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [row[key] for key in ("run", "iterations", "alarm", "sign", "halved", "lead")]
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    return table
