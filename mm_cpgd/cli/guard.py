"""``mm-cpgd guard``: the guard's alarms in stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def guard_command(
    runs: Annotated[list[Path] | None, typer.Argument(help="run folders or metrics.jsonl files")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="also write all alarms to this file")
    ] = None,
) -> None:
    """Replay the guard over stored runs: its alarms and their lead. Without a run: list the collapse signals.

    Example: `mm-cpgd guard runs/quickstart runs/too_fast`
    """
    from mm_cpgd.guard.watch import replay_run

    console = Console()
    if not runs:
        console.print(_signals())
        return
    found = [replay_run(run) for run in runs]
    if json_file:  # before anything is printed, which a closed pipe ends
        from mm_cpgd.cli.common import write_json

        write_json(json_file, {"runs": [one.as_dict() for one in found]})
    for one in found:
        for alarm in one.alarms:
            console.print(f"{one.name}: {alarm.line}", soft_wrap=True, highlight=False, markup=False)
    console.print(_overview([one.as_dict() for one in found]))
    if json_file:
        console.print(f"all alarms: {json_file}", soft_wrap=True)


def _signals() -> Table:
    from mm_cpgd.guard.signals import SIGNALS

    table = Table(title="collapse signals (* triggers rollback or stop)")
    for heading in ("signal", "test", "probable cause", "remedy"):
        table.add_column(heading)
    for signal in SIGNALS:
        fall = f", with reward/mean {signal.reward_fall:g} σ down" if signal.reward_fall else ""
        name = signal.name + "*" * signal.actionable
        table.add_row(name, f"{signal.test}{fall}", signal.cause, signal.remedy)
    return table


def _overview(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="first alarm that triggers rollback or stop")
    for heading in ("run", "iterations", "alarm", "signal", "eval/accuracy halved", "lead, iterations"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [row[key] for key in ("run", "iterations", "alarm", "sign", "halved", "lead")]
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    return table
