"""Named compositions of the algorithm, one YAML file each; schema: ``AlgorithmConfig``."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from mm_cpgd.errors import UserError
from rewards.messages import closest

_FOLDER = files("mm_cpgd.config.recipes")


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml")
    )


def recipe_note(name: str) -> str:
    """Return the description of a recipe: the comment at the top of its file, as one line."""
    lines = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


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
    recipe: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return recipe
