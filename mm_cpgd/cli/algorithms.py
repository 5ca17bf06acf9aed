"""``mm-cpgd algorithms``: parts and recipes of objectives, their formulas and plots."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mm_cpgd.algorithms.objective import Objective

algorithms_app = typer.Typer(
    invoke_without_command=True, help="List the parts and recipes of objectives; show one, with a plot."
)


@algorithms_app.callback()
def list_command(context: typer.Context) -> None:
    """List the parts and recipes: name, formula, source; and where they differ from their sources.

    Example: `mm-cpgd algorithms`
    """
    if context.invoked_subcommand is not None:
        return
    from mm_cpgd.algorithms.formulas import (
        DIFFERENCE_HEADING,
        KIND_SUMMARIES,
        LEGEND,
        difference_rows,
        part_heading,
        part_rows,
        recipe_rows,
    )

    console = Console()
    for kind, summary in KIND_SUMMARIES.items():
        _print_table(console, f"{kind}: {summary}", part_heading(kind), part_rows(kind))
    recipes = ((row[0], row[-1]) for row in recipe_rows())
    _print_table(console, "recipes", ("name", "description"), recipes)
    _print_table(console, "differences from the sources", DIFFERENCE_HEADING, difference_rows())
    console.print(Text(LEGEND))
    console.print("Details of one: mm-cpgd algorithms show cpgd")


@algorithms_app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="a recipe, a part (surrogate.cpgd), or a config")],
    plot: Annotated[
        Path | None,
        typer.Option(help="plot loss and gradient against the log-ratio: .png, .svg or .pdf"),
    ] = None,
    beside: Annotated[
        list[str] | None, typer.Option("--beside", help="plot this recipe or config too; may be repeated")
    ] = None,
) -> None:
    """Print the formula that a recipe composes, its numbers and where it differs from its source; plot it.

    Example: `mm-cpgd algorithms show cpgd --plot cpgd.png --beside grpo --beside pg`
    """
    from mm_cpgd.algorithms.formulas import composition_lines, part_lines

    console = Console()
    part = _find_part(name)
    if part:
        _print_lines(console, part_lines(*part))
        return
    objective = load_objective(name)
    objectives = {name: objective, **{other: load_objective(other) for other in beside or []}}
    if plot:  # before anything is printed, which a closed pipe ends
        from mm_cpgd.algorithms.plot import omitted_parts, plot_objectives

        plot_objectives(plot, objectives)
    _print_lines(console, [*_notes(name), *composition_lines(objective)])
    if plot:
        console.print(f"plot: {plot}", soft_wrap=True)
        for label, plotted in objectives.items():
            if omitted := omitted_parts(plotted):
                names = ", ".join(omitted)
                console.print(f"{label} is plotted without {names}: no function of ℓ alone", soft_wrap=True)


def load_objective(name: str) -> Objective:
    """Compose the objective of a recipe or of a config file.

    Raises:
        UserError: there is no such recipe or file.
    """
    from mm_cpgd.algorithms.composition import build_objective
    from mm_cpgd.config.loading import load_config
    from mm_cpgd.config.recipes import load_recipe
    from mm_cpgd.config.schema import AlgorithmConfig
    from mm_cpgd.training.rollouts.build import longest_completion

    if _is_config(name):
        config = load_config(name)
        rollout = config.rollout
        return build_objective(
            config.algorithm, completions=rollout.completions, max_new_tokens=longest_completion(rollout)
        )
    # A recipe does not define these numbers of a run; no formula contains them.
    return build_objective(AlgorithmConfig(**load_recipe(name)), completions=8, max_new_tokens=1024)


def _find_part(name: str) -> tuple[str, str] | None:
    """Return kind and name of a part given as ``surrogate.cpgd``, or by name alone unless a recipe has it."""
    from mm_cpgd.algorithms.parts import PARTS
    from mm_cpgd.config.recipes import recipe_names

    kind, dot, part = name.partition(".")
    if dot and part in PARTS.get(kind, {}):
        return kind, part
    found = [kind for kind in PARTS if name in PARTS[kind]]
    return (found[0], name) if found and name not in recipe_names() else None


def _notes(name: str) -> list[tuple[str, str]]:
    """Return a recipe's description, and where the recipe or config differs from its source."""
    from mm_cpgd.config.loading import load_config
    from mm_cpgd.config.recipes import listed_differences, recipe_differences, recipe_note

    if not _is_config(name):
        return [(name, recipe_note(name)), *(("differs", text) for text in recipe_differences(name))]
    heads = (file.read_text(encoding="utf-8") for file in _config_files(name))
    lines = [("differs", text) for head in heads for text in listed_differences(head)]
    recipe = load_config(name).algorithm.recipe
    # The config may have set the values that these texts name.
    inherited = recipe_differences(recipe) if recipe else ()
    return [*lines, *((f"recipe {recipe} differs", text) for text in inherited)]


def _is_config(name: str) -> bool:
    """Return whether a name is that of a config: a file, or a shipped config that is no recipe."""
    from mm_cpgd.config.loading import shipped_configs
    from mm_cpgd.config.recipes import recipe_names

    return name.endswith((".yaml", ".yml")) or (name in shipped_configs() and name not in recipe_names())


def _config_files(name: str) -> list[Path]:
    """Return the file of a config that loads, and those that it extends."""
    from mm_cpgd.config.loading import find_config
    from mm_cpgd.config.yaml import read_yaml

    files = [find_config(Path(name))]
    while base := read_yaml(files[-1]).get("extends"):
        files.append(files[-1].parent / Path(base).expanduser())
    return files


def _print_table(
    console: Console, title: str, heading: tuple[str, ...], rows: Iterable[tuple[str, ...]]
) -> None:
    table = Table(*heading, title=title, title_justify="left", show_lines=True)
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    console.print(table)


def _print_lines(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for label, text in lines:
        table.add_row(Text(label, style="bold"), Text(text))
    console.print(table)
