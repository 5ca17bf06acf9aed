"""``mm-cpgd study``: run and report the studies of stability and of methods, and compare two studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mm_cpgd.study.compare import Comparison

study_app = typer.Typer(no_args_is_help=True, help="Test on your own machine which objectives collapse.")
FOLDER = Path("runs/stability")
METHODS_FOLDER = Path("runs/methods")


@study_app.command("stability")
def stability(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="section.key=value … for every run, on top of the study's config"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="the small grid, within 20 minutes on two cores")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="folder of the study; an existing study is resumed")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="runs at the same time; default: one per core")] = None,
    seeds: Annotated[str | None, typer.Option(help="seeds to run, for instance 1-5 or 1,2,7")] = None,
) -> None:
    """Run objectives × learning rates × updates × seeds on the tiny policy, and report the results.

    The same command resumes an interrupted study. Example: `mm-cpgd study stability --quick`
    """
    from mm_cpgd.study.grid import QUICK, Grid, seeds_of
    from mm_cpgd.study.run import choose_jobs, run_study

    grid = QUICK if quick else Grid()
    if seeds:
        grid = replace(grid, seeds=seeds_of(seeds))
    grid = replace(grid, changes=tuple(overrides or ()))
    folder = output or (FOLDER.with_name(f"{FOLDER.name}-quick") if quick else FOLDER)
    workers = choose_jobs(jobs)
    console = Console(stderr=True)
    print(run_study(grid, folder, workers, console))


@study_app.command("methods")
def methods(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="section.key=value … for every run, on top of the study's config"),
    ] = None,
    recipes: Annotated[
        str | None,
        typer.Option(help="recipes, for instance gspo,cpgd; grpo is always run; default: all shipped ones"),
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(help="grids of conditions beside the plain runs: wrong,stale,drift,aggregation,lead"),
    ] = None,
    rates: Annotated[str, typer.Option(help="learning rates that every recipe is run at")] = "2e-5,6e-5,2e-4",
    seeds: Annotated[str, typer.Option(help="seeds to run, for instance 1-5 or 1,2,7")] = "1-5",
    updates: Annotated[int, typer.Option(help="optimizer steps per rollout batch, a square number")] = 4,
    output: Annotated[
        Path, typer.Option(help="folder of the study; an existing study is resumed")
    ] = METHODS_FOLDER,
    jobs: Annotated[int | None, typer.Option(help="runs at the same time; default: one per core")] = None,
    page: Annotated[
        Path | None, typer.Option(help="page whose tables, between their marks, are also rewritten")
    ] = None,
) -> None:
    """Compare recipes on the tiny policy at equal iterations and at equal tokens, with intervals over seeds.

    The same command resumes it. Example: `mm-cpgd study methods --recipes cpgd,gspo --conditions wrong`
    """
    from mm_cpgd.study.conditions import conditions_named
    from mm_cpgd.study.grid import Grid, rates_of, seeds_of
    from mm_cpgd.study.methods import methods_of, report_methods, run_methods
    from mm_cpgd.study.methods_page import write_methods
    from mm_cpgd.study.run import choose_jobs

    chosen = [name.strip() for name in recipes.split(",")] if recipes else None
    names = methods_of(chosen, conditions_named(conditions) if conditions else ())
    grid = Grid(names, rates_of(rates), (updates,), seeds_of(seeds), tuple(overrides or ()))
    written = run_methods(grid, output, choose_jobs(jobs), Console(stderr=True))
    if page:
        write_methods(page, report_methods(output))
    print(page or written)


@study_app.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="folder of the study")] = FOLDER,
    page: Annotated[
        Path | None,
        typer.Option(help="file of the page, with its plots beside it; default: stability.md in the folder"),
    ] = None,
) -> None:
    """Rewrite summary, plots and page from the existing results.

    Example: `mm-cpgd study report runs/stability --page docs/stability.md`
    """
    from mm_cpgd.study.run import report_study

    print(report_study(folder, page))


@study_app.command("guard")
def guard(
    folder: Annotated[Path, typer.Argument(help="folder of the study")] = FOLDER,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="section.key=value … for the reruns, for instance guard.settle=4"),
    ] = None,
    rerun: Annotated[
        bool,
        typer.Option(
            "--again/--no-again", help="rerun the collapsed runs with guard.action=rollback, or only replay"
        ),
    ] = True,
    jobs: Annotated[int | None, typer.Option(help="runs at the same time; default: one per core")] = None,
    seeds: Annotated[str | None, typer.Option(help="only runs of these seeds, for instance 1-2")] = None,
) -> None:
    """Show the guard's alarms in a finished study, and which collapsing runs rollback rescues.

    The same command resumes interrupted reruns. Example: `mm-cpgd study guard runs/stability --no-again`
    """
    from mm_cpgd.study.grid import seeds_of
    from mm_cpgd.study.guard import report_guard, run_guarded
    from mm_cpgd.study.run import choose_jobs

    chosen = seeds_of(seeds) if seeds else None
    if rerun:
        console = Console(stderr=True)
        run_guarded(folder, chosen, overrides or (), choose_jobs(jobs), console)
    Console().print(guard_table(report_guard(folder, chosen)))


@study_app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="folder of a study")],
    second: Annotated[Path, typer.Argument(help="folder of another study, for instance of another machine")],
) -> None:
    """Compare two studies: collapse rates and the order of the objectives.

    Example: `mm-cpgd study compare runs/stability runs/stability-b`
    """
    from mm_cpgd.study.compare import compare_studies

    found = compare_studies(first, second)
    console = Console()
    console.print(compare_table(found))
    console.print(order_text(found), highlight=False)


GUARD_LINES = {
    "false_alarms": "healthy runs with an alarm",
    "declined": "declining runs with an alarm",
    "noticed": "collapsing runs with an alarm before the loss",
    "rescued": "collapsing runs that rollback rescued",
}


def guard_table(summary: Mapping[str, Any]) -> Table:
    """Return a table of the shares of ``study.guard.summarise_guard``."""
    from mm_cpgd.study.page import share

    table = Table("of the study's runs", "count (95 %)", title="the guard")
    for key, text in GUARD_LINES.items():
        table.add_row(text, share(summary[key]))
    if summary["lead"]:
        lead = "{median:g} ({least}–{most})".format(**summary["lead"])
        table.add_row("iterations before, median (range)", lead)
    return table


def compare_table(found: Comparison) -> Table:
    """Return a table of both studies' collapse rates and places, and whether the rates agree."""
    from mm_cpgd.study.grid import method_named
    from mm_cpgd.study.page import share

    table = Table(
        "objective", "collapsed, first (95 %)", "collapsed, second (95 %)", "place", "within intervals"
    )
    for place, name in enumerate(found.rankings[0], 1):
        one, other = (share(side["collapse"]) for side in found.methods[name])
        places = f"{place} → {found.rankings[1].index(name) + 1}"
        table.add_row(method_named(name).label, one, other, places, "yes" if found.agrees(name) else "no")
    return table


def order_text(found: Comparison) -> str:
    """Return a line on the agreement of the two orders."""
    from mm_cpgd.study.grid import method_named

    levels = f"{found.levels} levels of stress in both"
    if found.tau is None:
        return f"{levels}; a single objective has no order"
    if not found.swapped:
        return f"{levels}; the same order of objectives"
    turned = "; ".join(
        f"{method_named(one).label} and {method_named(other).label}" for one, other in found.swapped
    )
    return f"{levels}; Kendall's τ of the orders {found.tau:.2f}; in another order: {turned}"
