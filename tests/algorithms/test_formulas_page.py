"""docs/algorithms.md agrees with the code and lists every logged metric."""

import pytest
import torch

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.formulas import markdown_table, update_tables
from mm_cpgd.algorithms.inputs.outcomes import CLOCK
from mm_cpgd.algorithms.part_info import description_of
from mm_cpgd.algorithms.parts import INPUTS, PARTS
from mm_cpgd.config.recipes import load_recipe, recipe_names
from mm_cpgd.config.schema import AlgorithmConfig
from tests.paths import DOCS

PAGE = (DOCS / "algorithms.md").read_text(encoding="utf-8")
FIRST_CELLS = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|")]


def test_tables_of_the_page_are_those_of_the_code():
    # If not: python -m mm_cpgd.algorithms.formulas docs/algorithms.md
    assert update_tables(PAGE) == PAGE


@pytest.mark.parametrize("kind", [*PARTS, "recipes"])
def test_page_has_a_table_of_every_kind(kind):
    assert markdown_table(kind) in PAGE


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in PARTS for name in PARTS[kind]])
def test_every_part_has_a_formula_and_a_source(kind, name):
    description = description_of(PARTS[kind][name])
    assert description.source != "–"
    assert "{" not in description.text()


def test_a_part_stands_in_its_group_with_a_line_on_when_to_use_it():
    lines = markdown_table("surrogate").splitlines()
    groups = [number for number, line in enumerate(lines) if line.startswith("| **")]
    (sapo,) = [
        number for number, line in enumerate(lines) if line.startswith("| `sapo` | as ppo_clip, where")
    ]
    assert lines[max(place for place in groups if place < sapo)].startswith("| **ratio of each token** |  |")
    assert "**" not in markdown_table("aggregation")


@pytest.mark.parametrize("name", recipe_names())
def test_the_row_of_a_recipe_names_all_its_parts(name):
    config = AlgorithmConfig(**load_recipe(name))
    parts = [config.advantage, config.surrogate, config.aggregation, *config.regularizers]
    parts += [*config.token_weights, *config.selection, *config.shaping]
    parts += [config.prompts] if config.prompts else []
    parts += [config.budget] if config.budget else []
    parts += [config.demonstrations] if config.demonstrations else []
    parts += [config.replay.credit] if config.replay else []
    parts += [config.tempered.temperature] if config.tempered else []
    parts += [config.reward_weights] if config.reward_weights else []
    parts += [*config.completions, *config.token_advantages]
    (row,) = [line for line in markdown_table("recipes").splitlines() if line.startswith(f"| `{name}` ")]
    assert [part.name for part in parts if f"`{part.name}`" not in row] == []


def test_page_lists_the_inputs_of_each_kind():
    for kind, inputs in INPUTS.items():
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {kind} |")]
        missing = {name for name in inputs - CLOCK if f"`{name}`" not in row}
        # The regularizers' row refers to the surrogate's.
        assert missing <= (INPUTS["surrogate"] if kind == "regularizers" else {"prepared", "state", "memory"})


def test_page_lists_the_inputs_of_all_kinds():
    section = PAGE.split("## Extension points")[1]
    assert {name for name in CLOCK if f"`{name}`" not in section} == set()


def test_page_has_a_row_for_every_metric():
    config = AlgorithmConfig(**load_recipe("cpgd_forking"))
    objective = build_objective(config, completions=2, max_new_tokens=8)
    zeros, ones = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    known = {part.where: torch.ones(1, 2) for part in objective.prepared_parts}
    _, metrics = objective.loss(
        zeros, zeros, torch.ones(1), ones, torch.tensor([2]), zeros, zeros, prepared=known
    )
    assert "token_weight" in metrics
    for name in metrics:
        assert any(f"`{name}`" in cell for cell in FIRST_CELLS), name
