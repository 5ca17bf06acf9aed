"""Objectives of a recipe with changed sections, and the error that an invalid composition raises."""

import pytest

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from mm_cpgd.errors import UserError


def build(completions=8, max_new_tokens=64, recipe="cpgd", iterations=1, **sections):
    config = AlgorithmConfig(**{**load_recipe(recipe), **sections})
    return build_objective(
        config, completions=completions, max_new_tokens=max_new_tokens, iterations=iterations
    )


def message(**sections):
    with pytest.raises(UserError) as caught:
        build(**sections)
    return str(caught.value)
