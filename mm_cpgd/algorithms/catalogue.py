"""All parts and recipes as tables, made from what the code says of itself.

``python -m mm_cpgd.algorithms.catalogue docs/algorithms.md`` writes the tables into the page, between the
marks ``<!-- table: KIND -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mm_cpgd.algorithms.described import description_of, filled, shown
from mm_cpgd.algorithms.parts import PARTS
from mm_cpgd.algorithms.recipes import load_recipe, recipe_names, recipe_note

ABOUT = {
    "advantage": "rewards (P, G) to advantages (P, G)",
    "surrogate": "what is maximised for each token",
    "regularizers": "what is subtracted for each token",
    "token_weights": "which tokens the surrogate is for",
    "aggregation": "how tokens become one number",
    "selection": "which prompts are learned from",
    "shaping": "what is added to a completion's reward",
    "prompts": "which prompts are drawn",
}
_WITH_GRADIENT = ("surrogate", "regularizers")
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = tuple[str, ...]


def rows_of(kind: str) -> Iterator[Row]:
    """Name, options with defaults, formula, gradient (of some kinds), source of each part of a kind."""
    for name, function in PARTS[kind].items():
        description = description_of(function)
        gradient = (filled(description.gradient) or "–",) if kind in _WITH_GRADIENT else ()
        yield (name, options_text(function), description.text(), *gradient, description.source)


def heading_of(kind: str) -> Row:
    """The columns of ``rows_of``."""
    gradient = ("gradient, times ∇log π",) if kind in _WITH_GRADIENT else ()
    return ("name", "options (default)", "formula", *gradient, "source")


def options_text(function: Callable[..., Any]) -> str:
    """Option names with their defaults, as ``a (1), b (must be written)``."""
    parameters = inspect.signature(function).parameters.values()
    options = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    texts = [f"{p.name} ({'must be written' if p.default is p.empty else shown(p.default)})" for p in options]
    return ", ".join(texts) or "–"


def recipe_rows() -> Iterator[Row]:
    """Name, advantage, surrogate, regularizers, token weights, aggregation, more, what it is."""
    for name in recipe_names():
        recipe = load_recipe(name)
        more = [part["name"] for kind in ("selection", "shaping") for part in recipe.get(kind, [])]
        more += [recipe["prompts"]["name"]] if "prompts" in recipe else []
        lists = [
            ", ".join(part["name"] for part in recipe.get(kind, [])) or "–"
            for kind in ("regularizers", "token_weights")
        ]
        first = (name, recipe["advantage"]["name"], recipe["surrogate"]["name"])
        yield (*first, *lists, recipe["aggregation"]["name"], ", ".join(more) or "–", recipe_note(name))


RECIPE_HEADING = (
    *("name", "advantage", "surrogate", "regularizers", "token weights", "aggregation", "more"),
    "what it is",
)


def markdown(kind: str) -> str:
    """One table of the page; ``kind`` is one of ``PARTS`` or ``recipes``."""
    rows = recipe_rows() if kind == "recipes" else rows_of(kind)
    heading = RECIPE_HEADING if kind == "recipes" else heading_of(kind)
    named = 7 if kind == "recipes" else 1
    lines = [heading, tuple("---" for _ in heading)]
    lines += [tuple(_cell(text, i < named) for i, text in enumerate(row)) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str, name: bool) -> str:
    text = text.replace("|", "\\|")
    return ", ".join(f"`{part}`" for part in text.split(", ")) if name and text != "–" else text


def with_tables(page: str) -> str:
    """The page with every marked table as the code says it."""
    return _MARKED.sub(lambda match: match[1] + markdown(match[2]) + match[3], page)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_tables(target.read_text(encoding="utf-8")), encoding="utf-8")
