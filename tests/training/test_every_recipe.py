"""Every shipped recipe in whole runs: stopped and resumed, and on two processes with small micro-batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mm_cpgd.config.recipes import recipe_names
from tests.fakes import recipe_runs
from tests.fakes import training_runs as trainer_jobs

Straight = Callable[[str], Path]
Settings = Callable[[str, Path], list[str]]
# Two processes add the same float32 numbers in another order: up to 3e-6 of the metrics, and 6e-6 of the way
# that the weights have gone.
TOLERANCE, APART = 1e-5, 1e-4


class Special(NamedTuple):
    """What a recipe needs beside the settings of all, and why."""

    reason: str
    overrides: tuple[str, ...] = ()
    tolerance: float = TOLERANCE


SPECIAL: dict[str, Special] = {
    "cpgd_forking": Special(
        "with its share of 0.2 two tokens' entropies at the threshold differ by less than rounding does",
        ("algorithm.token_weights=[{name: forking_tokens, share: 0.3}]",),
    ),
}
ORDINARY = Special("")


@pytest.fixture(scope="module")
def small_yaml(tmp_path_factory: pytest.TempPathFactory, make_yaml: Callable[[Path], Path]) -> Path:
    """Return a config that the runs of this module share; their folders are beside it."""
    return make_yaml(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def settings(small_yaml: Path) -> Settings:
    """Return the overrides of a recipe's run in a folder."""

    def of(recipe: str, folder: Path) -> list[str]:
        common = recipe_runs.settings(recipe, small_yaml.with_name("rules.py"), folder)
        return [*common, *SPECIAL.get(recipe, ORDINARY).overrides]

    return of


@pytest.fixture(scope="module")
def straight(small_yaml: Path, settings: Settings) -> Straight:
    """Run a recipe from start to end on one process, once; return the run folder."""

    def run(recipe: str) -> Path:
        folder = small_yaml.parent / "straight" / recipe
        if not folder.exists():
            trainer_jobs.run(small_yaml, [*settings(recipe, folder), "checkpoint.every=1"])
        return folder

    return run


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_stopped_and_resumed_run_is_the_straight_one(
    recipe: str, straight: Straight, settings: Settings, small_yaml: Path, tmp_path: Path
) -> None:
    expected, folder = straight(recipe), tmp_path / "run"
    shutil.copytree(expected, folder)
    shutil.rmtree(folder / "checkpoints" / f"step-{recipe_runs.ITERATIONS}")
    shutil.rmtree(folder / "final")
    trainer_jobs.run(small_yaml, [*settings(recipe, folder), "checkpoint.every=1"], resume=True)
    rows = recipe_runs.rows(expected)
    assert all(row["optimizer/grad_norm"] > 0 for row in rows)
    assert recipe_runs.differences(recipe_runs.rows(folder), rows) == []
    assert recipe_runs.differences(recipe_runs.memory(folder), recipe_runs.memory(expected)) == []
    assert recipe_runs.distance(folder, expected) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_with_small_micro_batches_give_the_results_of_one_with_large_ones(
    straight: Straight, settings: Settings, small_yaml: Path, wordy_folder: Path
) -> None:
    names, pairs = recipe_names(), small_yaml.parent / "pairs"
    small = ["training.micro_batch_tokens=60", "checkpoint.every=0"]
    runs = [[*settings(name, pairs / name), *small] for name in names]
    assert trainer_jobs.one_after_another(small_yaml, runs, 800) == []
    problems = {}
    for name in names:
        one, two, tolerance = straight(name), pairs / name, SPECIAL.get(name, ORDINARY).tolerance
        lines = recipe_runs.differences(recipe_runs.rows(two), recipe_runs.rows(one), tolerance)
        lines += recipe_runs.differences(recipe_runs.memory(two), recipe_runs.memory(one), tolerance)
        apart = recipe_runs.share_apart(two, one, wordy_folder)
        problems[name] = lines + [f"weights: {apart:.1e} of the way apart"] * (apart > APART)
    assert {name: lines for name, lines in problems.items() if lines} == {}


def test_what_is_special_has_a_reason_and_a_recipe_that_there_is() -> None:
    assert set(SPECIAL) <= set(recipe_names())
    assert all(one.reason for one in SPECIAL.values())
    assert all(one.overrides or one.tolerance > TOLERANCE for one in SPECIAL.values())
