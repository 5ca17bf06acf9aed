"""Named compositions of the algorithm, one YAML file each; schema: ``AlgorithmConfig``."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from typing import Any

import yaml

from mm_cpgd.errors import UserError

_FOLDER = files("mm_cpgd.config.recipes")


def recipe_names() -> list[str]:
    """All recipes, sorted."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml")
    )


def recipe_note(name: str) -> str:
    """What the recipe is: the comment at its head, as one line."""
    lines = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def load_recipe(name: str) -> dict[str, Any]:
    """The recipe as written, to be overlaid by what the config says.

    Raises:
        UserError: there is no such recipe; names the nearest.
    """
    names = recipe_names()
    if name not in names:
        near = get_close_matches(name, names, n=1, cutoff=0.0)
        raise UserError(
            f"algorithm.recipe: there is no recipe {name!r}; the nearest is {near[0]!r}. "
            f"Recipes: {', '.join(names)}."
        )
    recipe: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return recipe
