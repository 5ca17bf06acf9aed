"""Every file in ``configs/`` is a test case: found, parsed, built, saved and dry-run."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mm_cpgd.config.loading import SHIPPED, load_config, save_config, shipped_configs
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.preflight.plan import print_plan
from mm_cpgd.training.setup import build_rewards, build_run_objective
from tests.paths import DATASETS, DOCS

CONFIGS = sorted(SHIPPED.rglob("*.yaml"))
# Recipes that docs/training.md lists for the quickstart.
RECIPES = (
    "aepo",
    "bnpo",
    "brpo",
    "bvpo",
    "cispo",
    "clip_cov",
    "cpgd_entropy",
    "cpgd_forking",
    "deepseek_v32",
    "dpo_online",
    "dppo",
    "epo",
    "f_dpg",
    "gdpo",
    "gmpo",
    "grpo",
    "gspo",
    "hpt",
    "kl_cov",
    "luspo",
    "maxrl",
    "mdpo",
    "mmr1",
    "one_shot",
    "optimal_baseline",
    "papo",
    "pgpo",
    "rloo",
    "sapo",
    "scale_rl",
    "spear",
    "vppo",
)


def names(belongs: Callable[[RunConfig], bool]) -> list[str]:
    return [file.stem for file in CONFIGS if belongs(load_config(file))]


def drawn(config: RunConfig) -> bool:
    return config.data.train.path.startswith(("generated:", "cold-start:"))


def beside(config: RunConfig) -> bool:
    return "shared/datasets" in config.data.train.path


def hub(config: RunConfig) -> bool:
    return not drawn(config) and not beside(config)


def dry_run(name: str, *overrides: str, with_processor: bool = True) -> str:
    stream = io.StringIO()
    config = load_config(name, overrides)
    print_plan(config, Console(file=stream, width=200), with_processor=with_processor)
    return stream.getvalue()


def quickstart(recipe: str) -> list[str]:
    """Return the overrides that give the quickstart another recipe."""
    return [f"algorithm.recipe={recipe}", f"name=quickstart_{recipe}"]


def limits(name: str, rows: int) -> list[str]:
    both = ["train"] if load_config(name).data.eval is None else ["train", "eval"]
    return [f"data.{source}.limit={rows}" for source in both]


def test_all_required_configs_are_shipped() -> None:
    twins = [
        f"{name}{end}"
        for name in ("qwen2_5_vl_7b", "qwen2_5_vl_3b_lora")
        for end in ("_cpgd", "_grpo", "_rloo")
    ]
    wanted = ["quickstart", "k12", "tabmwp", "tabmwp_sft", *twins]
    assert set(wanted) <= set(shipped_configs())


def test_the_page_on_training_lists_the_recipes_of_the_quickstart() -> None:
    table = (DOCS / "training.md").read_text(encoding="utf-8").partition("## Recipes on the quickstart")[2]
    named = re.findall(r"mm-cpgd quickstart algorithm\.recipe=(\w+) name=quickstart_\1", table)
    assert tuple(sorted(named)) == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("path", ["quickstart_{}", "quickstart_{}.yaml", "configs/quickstart_{}.yaml"])
def test_a_former_quickstart_config_is_refused_with_the_override_that_replaces_it(
    path: str, recipe: str
) -> None:
    with pytest.raises(UserError) as error:
        load_config(path.format(recipe))
    _, _, command = str(error.value).partition(f"config quickstart_{recipe} was removed; use: ")
    assert command.split() == ["quickstart", *quickstart(recipe)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_quickstart_builds_objective_and_rewards_of_another_recipe(recipe: str) -> None:
    config = load_config("quickstart", quickstart(recipe))
    assert build_run_objective(config).parts
    assert build_rewards(config).weights


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_quickstart_with_another_recipe_is_saved_and_loaded(recipe: str, tmp_path: Path) -> None:
    config = load_config("quickstart", quickstart(recipe))
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_quickstart_with_another_recipe_differs_in_name_and_algorithm_alone(recipe: str) -> None:
    twin, model = load_config("quickstart", quickstart(recipe)), load_config("quickstart")
    assert (twin.algorithm.recipe, twin.name) == (recipe, f"quickstart_{recipe}")
    same = {"name": model.name, "algorithm": model.algorithm}
    assert twin.model_copy(update=same) == model


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_quickstart_with_another_recipe_is_planned_with_the_tiny_policy(
    recipe: str, tiny_folder: Path
) -> None:
    overrides = [*quickstart(recipe), f"policy.model={tiny_folder}", *limits("quickstart", 10)]
    assert "10 used, 0 unusable, 10 in all" in dry_run("quickstart", *overrides)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_builds_its_objective_and_its_rewards(file: Path) -> None:
    config = load_config(file)
    assert build_run_objective(config).parts
    assert build_rewards(config).weights


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_that_was_saved_loads_as_the_same_config(file: Path, tmp_path: Path) -> None:
    config = load_config(file)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_is_called_as_its_file_so_that_no_two_runs_share_a_folder(file: Path) -> None:
    assert load_config(file).name == file.stem


@pytest.mark.parametrize("name", [file.stem for file in CONFIGS if file.stem.endswith(("_grpo", "_rloo"))])
def test_a_twin_differs_from_its_model_in_name_and_algorithm_alone(name: str) -> None:
    twin = load_config(name)
    model = load_config(f"{name.rpartition('_')[0]}_cpgd")
    assert twin.algorithm.recipe == name.rpartition("_")[2]
    assert twin.algorithm.selection == model.algorithm.selection
    same = {"name": model.name, "algorithm": model.algorithm}
    assert twin.model_copy(update=same) == model


@pytest.mark.parametrize("name", names(drawn))
def test_a_config_on_generated_rows_is_planned_with_the_tiny_policy(name: str, tiny_folder: Path) -> None:
    text = dry_run(name, f"policy.model={tiny_folder}", *limits(name, 10))
    assert "10 used, 0 unusable, 10 in all" in text


@pytest.mark.shared
@pytest.mark.parametrize("name", names(beside))
def test_a_config_on_real_rows_is_planned_with_the_tiny_policy(name: str, tiny_folder: Path) -> None:
    if not DATASETS.is_dir():
        pytest.skip("the real data is not beside the project (../shared/datasets)")
    text = dry_run(name, f"policy.model={tiny_folder}", *limits(name, 20))
    assert "20 used, 0 unusable, 20 in all" in text


@pytest.mark.parametrize("name", names(hub))
def test_a_config_of_a_hub_model_is_planned_without_model_and_data(name: str) -> None:
    rows = [f"data.{source}.path=generated:all" for source in ("train", "eval")]
    text = dry_run(name, "policy.model=nobody/no-such-model", *rows, *limits(name, 10), with_processor=False)
    assert "10 used, 0 unusable, 10 in all" in text


def test_the_published_setting_is_the_published_one() -> None:
    config = load_config("qwen2_5_vl_7b_cpgd")
    rollout, training = config.rollout, config.training
    assert (rollout.prompts, rollout.completions, rollout.temperature) == (128, 8, 1.0)
    assert (config.data.max_prompt_tokens, rollout.max_new_tokens) == (3000, 4096)
    assert (training.learning_rate, config.policy.freeze_vision) == (1e-6, True)
    assert {rule.rule: rule.weight for rule in config.rewards} == {"accuracy": 1.0, "format": 0.5}
    (selection,) = config.algorithm.selection
    assert (selection.name, selection.options) == ("accuracy_filter", {"low": 0.1, "high": 0.9})


@pytest.mark.parametrize("path", ["quickstart_grpo.yaml", "../configs/quickstart_grpo.yaml"])
def test_extending_a_former_quickstart_config_reports_what_replaces_it(tmp_path: Path, path: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {path}\n")
    with pytest.raises(
        UserError, match=r"was removed; extend quickstart\.yaml and write algorithm: {recipe: grpo}"
    ):
        load_config(file)
