"""Composed formulas of recipes."""

import pytest

from mm_cpgd.algorithms.formulas import composed_formula, composition_lines
from mm_cpgd.cli.algorithms import load_objective
from mm_cpgd.config.recipes import recipe_names


@pytest.mark.parametrize(
    ("recipe", "formula"),
    [
        ("pg", "J = Σ w·S"),
        ("cpgd_forking", "J = Σ w·(m·S − Ω)"),
        ("cpgd_entropy", "J = Σ w·(S − Ω₁ − Ω₂)"),
        ("clip_cov", "J = Σ w·m·S"),
    ],
)
def test_the_composed_formula_has_a_letter_for_each_part(recipe, formula):
    assert composed_formula(load_objective(recipe)) == formula


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_is_written_without_unfilled_options(recipe):
    text = "\n".join(text for _, text in composition_lines(load_objective(recipe)))
    assert "{" not in text
    assert "source: –" not in text
