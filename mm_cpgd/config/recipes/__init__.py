"""Named compositions of the algorithm, one YAML file each; schema: ``AlgorithmConfig``."""

from __future__ import annotations

from importlib.resources import files
from itertools import takewhile
from typing import Any

import yaml

from mm_cpgd.errors import UserError
from rewards.messages import closest

_FOLDER = files("mm_cpgd.config.recipes")
DIFFERS = "Differs from its source:"


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml")
    )


def recipe_note(name: str) -> str:
    """Return the description of a recipe: the comment at the top of its file, as one line."""
    return " ".join(_head(_read(name)).partition(DIFFERS)[0].split())


def recipe_differences(name: str) -> tuple[str, ...]:
    """Return where a recipe differs from its source, one text each: see ``listed_differences``."""
    return listed_differences(_read(name))


def listed_differences(text: str) -> tuple[str, ...]:
    """Return the differences from the source that the head of a recipe or config lists.

    They are the items of the list under the line ``# Differs from its source:`` in the comment that opens the
    file; each says what the source does, what is done here, and the settings for the source's behaviour.
    """
    items = _head(text).partition(DIFFERS)[2].split("\n- ")[1:]
    return tuple(" ".join(item.split()) for item in items)


def _head(text: str) -> str:
    """Return the comment that opens a file, without its marks."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(name: str) -> dict[str, Any]:
    """Return the recipe as written, to be overridden by the config.

    Raises:
        UserError: there is no such recipe; the nearest is named.
    """
    names = recipe_names()
    if name not in names:
        near = closest(name, names, cutoff=0.0)
        raise UserError(
            f"algorithm.recipe: there is no recipe {name!r}; the nearest is {near!r}. "
            f"Recipes: {', '.join(names)}."
        )
    recipe: dict[str, Any] = yaml.safe_load(_read(name))
    return recipe
