"""The page on algorithms names everything that can be written or is logged."""

from pathlib import Path

import pytest
import torch

from mm_cpgd.algorithms.objective import build_objective
from mm_cpgd.algorithms.parts import PARTS, make_part
from mm_cpgd.algorithms.recipes import load_recipe, recipe_names
from mm_cpgd.config import AlgorithmConfig

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]


def row_of(name):
    rows = [line for line in ROWS if f"`{name}`" in line.split("|")[1]]
    assert rows, f"docs/algorithms.md has no table row for {name}"
    return " ".join(rows)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in PARTS for name in PARTS[kind]])
def test_page_has_a_row_for_the_part_with_every_option(kind, name):
    required = {"coefficient": 1.0} if name == "kl" else {}
    row = row_of(name)
    options = make_part(kind, name, required).options
    if name == "dual_clip":
        row += row_of("ppo_clip")
    assert [option for option in options if f"`{option}`" not in row] == []


@pytest.mark.parametrize("name", recipe_names())
def test_page_has_a_row_for_the_recipe_with_every_part(name):
    config = AlgorithmConfig(**load_recipe(name))
    parts = [config.advantage, config.surrogate, config.aggregation]
    parts += [*config.regularizers, *config.selection, *config.shaping]
    assert [part.name for part in parts if f"`{part.name}`" not in row_of(name)] == []


def test_page_has_a_row_for_every_metric():
    objective = build_objective(AlgorithmConfig(**load_recipe("cpgd")), completions=2, max_new_tokens=8)
    zeros, ones = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    _, metrics = objective.loss(zeros, zeros, torch.ones(1), ones, torch.tensor([2]), zeros, zeros)
    for name in metrics:
        assert row_of(name)
