"""Formulas of parts and recipes: tables for the docs, and one composed formula for the terminal.

``python -m mm_cpgd.algorithms.formulas docs/algorithms.md`` writes the tables into the page, between the
markers ``<!-- table: KIND -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.algorithms.part_info import description_of, fill_options, format_value
from mm_cpgd.algorithms.parts import PARTS, Part
from mm_cpgd.config.loading import SHIPPED, shipped_configs
from mm_cpgd.config.recipes import (
    listed_differences,
    load_recipe,
    recipe_differences,
    recipe_names,
    recipe_note,
)

KIND_SUMMARIES = {
    "advantage": "rewards (P, G) to advantages (P, G)",
    "surrogate": "term maximised for each token",
    "regularizers": "terms subtracted for each token",
    "token_weights": "weights of the surrogate by token",
    "aggregation": "weights that sum all tokens to one number",
    "selection": "filters of prompts after the rollout",
    "shaping": "additions to a completion's reward",
    "prompts": "scores of the curriculum sampler",
    "budget": "how many completions each prompt gets",
    "demonstrations": "which prompts learn from rollouts, from their rows' solutions, or from both",
    "replay": "which earlier completions are learned from again",
    "tempered": "temperature of further completions, of which right ones are imitated",
    "reward_weights": "weights of the rules that change over the run",
    "completions": "filters of completions, after their advantages",
    "token_advantages": "advantages of completions to those of tokens",
}
# Kinds in the recipes' last column of parts.
_MORE = ("selection", "shaping", "completions", "token_advantages")
# Sections whose part stands below a key of its own.
_SECTIONS = {"replay": "credit", "tempered": "temperature"}
_WITH_GRADIENT = ("surrogate", "regularizers")
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = tuple[str, ...]


def part_rows(kind: str) -> Iterator[Row]:
    """Yield the row of each part, with the columns of ``part_heading``; a group opens with its name alone."""
    grouped: dict[str, list[str]] = {}
    for name, function in PARTS[kind].items():
        grouped.setdefault(description_of(function).group, []).append(name)
    for group, names in grouped.items():
        if len(grouped) > 1:
            yield (group or "others", *("" for _ in part_heading(kind)[1:]))
        yield from (_part_row(kind, name) for name in names)


def _part_row(kind: str, name: str) -> Row:
    function = PARTS[kind][name]
    description = description_of(function)
    gradient = (fill_options(description.gradient) or "–",) if kind in _WITH_GRADIENT else ()
    first = (name, description.use or "–", options_text(function), description.text())
    return (*first, *gradient, description.source)


def part_heading(kind: str) -> Row:
    """Return the column names of ``part_rows``."""
    gradient = ("gradient, times ∇log π",) if kind in _WITH_GRADIENT else ()
    return ("name", "when to use it", "options (default)", "formula", *gradient, "source")


def options_text(function: Callable[..., Any]) -> str:
    """Return option names with their defaults, as ``a (1), b (required)``."""
    parameters = inspect.signature(function).parameters.values()
    options = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    texts = [f"{p.name} ({'required' if p.default is p.empty else format_value(p.default)})" for p in options]
    return ", ".join(texts) or "–"


def recipe_rows() -> Iterator[Row]:
    """Yield the row of each recipe, with the columns of ``RECIPE_HEADING``."""
    for name in recipe_names():
        recipe = load_recipe(name)
        more = [part["name"] for kind in _MORE for part in recipe.get(kind, [])]
        singles = ("prompts", "budget", "demonstrations", "reward_weights")
        more += [recipe[kind]["name"] for kind in singles if kind in recipe]
        more += [recipe[kind][key]["name"] for kind, key in _SECTIONS.items() if kind in recipe]
        lists = [
            ", ".join(part["name"] for part in recipe.get(kind, [])) or "–"
            for kind in ("regularizers", "token_weights")
        ]
        first = (name, recipe["advantage"]["name"], recipe["surrogate"]["name"])
        yield (*first, *lists, recipe["aggregation"]["name"], ", ".join(more) or "–", recipe_note(name))


RECIPE_HEADING: Row = (
    *("name", "advantage", "surrogate", "regularizers", "token weights", "aggregation", "more"),
    "description",
)


def difference_rows() -> Iterator[Row]:
    """Yield name and text of each difference from a source: of recipes, of parts, of shipped configs."""
    for name in recipe_names():
        yield from ((name, text) for text in recipe_differences(name))
    for kind, parts in PARTS.items():
        for name, function in parts.items():
            yield from ((f"{kind}.{name}", text) for text in description_of(function).differs)
    for name in shipped_configs():
        head = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
        yield from ((f"configs/{name}.yaml", text) for text in listed_differences(head))


DIFFERENCE_HEADING: Row = ("name", "the source, this project, and how to get the source's")


def markdown_table(kind: str) -> str:
    """Return one table of the page; ``kind`` is one of ``PARTS``, ``recipes`` or ``differences``."""
    if kind == "recipes":
        heading, rows, code_columns = RECIPE_HEADING, recipe_rows(), 7
    elif kind == "differences":
        heading, rows, code_columns = DIFFERENCE_HEADING, difference_rows(), 1
    else:
        heading, rows, code_columns = part_heading(kind), part_rows(kind), 1
    lines = [heading, tuple("---" for _ in heading)]
    for row in rows:
        cells = tuple(_cell(text, i < code_columns) for i, text in enumerate(row))
        lines.append(cells if any(row[1:]) else (f"**{row[0]}**", *row[1:]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str, code: bool) -> str:
    text = text.replace("|", "\\|")
    return ", ".join(f"`{part}`" for part in text.split(", ")) if code and text != "–" else text


def update_tables(page: str) -> str:
    """Return the page with every marked table regenerated from the code."""
    return _TABLE.sub(lambda match: match[1] + markdown_table(match[2]) + match[3], page)


LEGEND = (
    "ℓ = log π − log π_old of a token, r = e^ℓ; R reward, mean and std of the prompt's completions; "
    "y a completion of |y| tokens, M of them in the mini-batch over all processes; sg: stop gradient"
)
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
Line = tuple[str, str]


def composed_formula(objective: Objective) -> str:
    """Return the objective in one line: ``J = Σ w·(m·S − Ω)`` over the tokens of the mini-batch."""
    weights = "·".join(_letters("m", objective.token_weights))
    terms = [f"{weights}·S" if weights else "S"]
    terms += _letters("Ω", objective.regularizers)
    inner = " − ".join(terms)
    return f"J = Σ w·({inner})" if len(terms) > 1 else f"J = Σ w·{inner}"


def composition_lines(objective: Objective) -> Iterator[Line]:
    """Yield label and text for the formula and each of its letters, in numbers; details have no label."""
    yield "maximise", f"{composed_formula(objective)}, the sum over all tokens of the mini-batch"
    for part, letter in _lettered(objective):
        formula = part.description.text(part.options)
        symbol = formula.partition(" = ")[0]
        if letter and symbol in ("Ω", "m"):
            formula = letter + formula[len(symbol) :]
        yield f"{part.kind}: {part.name}", formula
        if part.description.gradient:
            yield "", f"gradient, times ∇log π: {fill_options(part.description.gradient, part.options)}"
        yield "", f"source: {part.description.source}"
        yield from (("", f"differs from its source: {text}") for text in part.description.differs)
    yield "", LEGEND
    yield "reference policy", "required" if objective.needs_reference else "none"


def part_lines(kind: str, name: str) -> Iterator[Line]:
    """Yield label and text for formula, gradient, options, source and docstring of one part."""
    function = PARTS[kind][name]
    description = description_of(function)
    yield kind, name
    if description.use:
        yield "use", description.use
    yield "formula", description.text()
    if description.gradient:
        yield "gradient", f"{fill_options(description.gradient)}, times ∇log π"
    yield "options", options_text(function)
    yield "source", description.source
    yield from (("differs", text) for text in description.differs)
    yield "", inspect.getdoc(function) or ""


def _lettered(objective: Objective) -> Iterator[tuple[Part, str]]:
    """Yield each part with its letter in the formula, or none."""
    yield objective.advantage, "A"
    yield objective.surrogate, "S"
    yield from zip(objective.token_weights, _letters("m", objective.token_weights), strict=True)
    yield from zip(objective.regularizers, _letters("Ω", objective.regularizers), strict=True)
    yield objective.aggregation, "w"
    others = (objective.selection, objective.shaping, objective.completions, objective.token_advantages)
    for part in (part for several in others for part in several):
        yield part, ""
    for one in (objective.prompts, objective.budget, objective.demonstrations, objective.reward_weights):
        if one:
            yield one, ""


def _letters(letter: str, parts: tuple[Part, ...]) -> list[str]:
    """Return the letter for each part, numbered where there are several."""
    if len(parts) == 1:
        return [letter]
    return [letter + str(number + 1).translate(_SUBSCRIPTS) for number in range(len(parts))]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(update_tables(target.read_text(encoding="utf-8")), encoding="utf-8")
