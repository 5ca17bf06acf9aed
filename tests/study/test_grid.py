"""Grid of a study and the configs of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm_cpgd.config.recipes import recipe_names
from mm_cpgd.errors import UserError
from mm_cpgd.study.grid import (
    METHODS,
    PILOT_SEEDS,
    QUICK,
    Grid,
    Stress,
    Trial,
    config_of,
    grid_from,
    method_named,
    rate_text,
    seeds_of,
)
from mm_cpgd.training.setup import build_run_objective, step_schedule


def config(method: str = "cpgd", updates: int = 4, seed: int = 1, *changes: str):
    return config_of(Trial(method, Stress(2e-4, updates), seed), Path("unused"), changes)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_composes_an_objective(method):
    assert method.recipe in recipe_names()
    build_run_objective(config(method.name))


@pytest.mark.parametrize(("updates", "passes"), [(1, 1), (4, 2), (16, 4)])
def test_updates_are_inner_epochs_times_mini_batches(updates, passes):
    found = config(updates=updates)
    assert found.training.inner_epochs == passes
    assert step_schedule(found).steps_per_iteration == updates


def test_updates_that_are_not_a_square_are_refused():
    with pytest.raises(UserError, match="8 updates"):
        config(updates=8)


def test_prompts_that_do_not_divide_into_mini_batches_are_refused():
    with pytest.raises(UserError, match=r"rollout\.prompts=6"):
        config("cpgd", 16, 1, "rollout.prompts=6")


def test_methods_of_a_seed_differ_only_in_the_algorithm():
    ours, theirs = (config(name).model_dump() for name in ("cpgd", "grpo"))
    assert {key for key in ours if ours[key] != theirs[key]} == {"algorithm"}


def test_seeds_have_different_rows_and_the_same_held_out_rows():
    first, second = config(seed=1), config(seed=2)
    assert first.data.train.seed != second.data.train.seed
    assert first.data.eval == second.data.eval
    assert (first.seed, second.seed) == (1, 2)


def test_a_run_never_trains_on_a_row_twice():
    found = config()
    assert found.data.train.limit == found.training.iterations * found.rollout.prompts


def test_pg_with_std_weight_is_cpgd_without_clip_and_drift():
    ours, cpgd = config("pg_std").algorithm, config("cpgd").algorithm
    assert ours.advantage == cpgd.advantage
    assert (ours.surrogate.name, ours.regularizers) == ("policy_gradient", [])


def test_the_full_grid_holds_every_combination_once():
    grid = Grid()
    trials = grid.trials()
    assert len(trials) == len(set(trials)) == len(METHODS) * len(grid.rates) * len(grid.updates) * 5


def test_an_interrupted_grid_has_complete_seeds():
    grid = Grid()
    share = len(grid.trials()) // len(grid.seeds)
    assert {trial.seed for trial in grid.trials()[:share]} == {grid.seeds[0]}


def test_the_quick_grid_is_a_subset_of_the_full_one():
    assert set(QUICK.trials()) < set(Grid().trials())


def test_reported_seeds_are_not_pilot_seeds():
    assert not {*Grid().seeds, *QUICK.seeds} & {*PILOT_SEEDS}


def test_a_grid_round_trips_through_json():
    assert grid_from(json.loads(json.dumps(QUICK.as_dict()))) == QUICK


@pytest.mark.parametrize(("text", "seeds"), [("1,2,7", (1, 2, 7)), ("1-3", (1, 2, 3)), ("5, 1-2", (5, 1, 2))])
def test_seeds_are_parsed_from_lists_and_ranges(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1;2", "3-1"])
def test_seeds_of_another_form_are_refused(text):
    with pytest.raises(UserError, match="--seeds"):
        seeds_of(text)


def test_pilot_seeds_are_refused():
    with pytest.raises(UserError, match="101"):
        seeds_of("100-102")


def test_names_of_trials_are_unique():
    names = [trial.name for trial in Grid().trials()]
    assert len(set(names)) == len(names)
    assert Trial("cpgd", Stress(2e-4, 16), 3).name == "cpgd-lr2e-4-u16-s3"


@pytest.mark.parametrize(("rate", "text"), [(2e-5, "2e-5"), (0.00015, "1.5e-4"), (0.1, "1e-1")])
def test_rates_are_written_in_short_form(rate, text):
    assert rate_text(rate) == text


def test_dapo_samples_at_most_three_batches():
    assert build_run_objective(config("dapo")).max_rounds == 3
    assert "3 batches" in method_named("dapo").note
