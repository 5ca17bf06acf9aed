"""load_config and save_config: overrides, extends, paths, recipes, and user errors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mm_cpgd.config import loading as config_loading
from mm_cpgd.config.loading import load_config, save_config
from tests.fakes.configs import BASE, Write, message


def test_overrides_replace_values_of_the_file_and_the_last_one_wins(write: Write) -> None:
    config = load_config(write("seed: 1\n"), ["seed=2", "training.iterations=7", "seed=3"])
    assert (config.seed, config.training.iterations) == (3, 7)


def test_an_override_changes_an_entry_of_a_list_in_the_file(write: Write) -> None:
    config = load_config(write(), ["algorithm.regularizers.1.coefficient=2e-3"])
    assert [part.options["coefficient"] for part in config.algorithm.regularizers] == [0.01, 0.002]


def test_an_override_changes_an_entry_of_a_default_list(write: Write) -> None:
    config = load_config(write(), ["rewards.0.weight=2"])
    assert [(reward.rule, reward.weight) for reward in config.rewards] == [("accuracy", 2.0), ("format", 0.5)]


def test_an_override_creates_the_section_that_it_needs(write: Write) -> None:
    lora = load_config(write(), ["policy.lora.rank=4"]).policy.lora
    assert lora is not None
    assert lora.rank == 4


def test_an_override_may_hold_an_equals_sign_and_may_be_empty(write: Write) -> None:
    config = load_config(write("name: old\n"), ["policy.system_prompt=a=b", "output="])
    assert config.policy.system_prompt == "a=b"
    assert config.output is None


def test_an_index_past_the_end_is_reported_with_the_lists_length(write: Write) -> None:
    assert "rewards has 2 entries" in message(write(), "rewards.2.weight=1")


def test_an_index_into_a_section_is_one_message(write: Write) -> None:
    assert "0 is an index but no list is there" in message(write(), "training.0.iterations=1")


@pytest.mark.parametrize("text", ["seed", "=3", "training..seed=1"])
def test_an_override_of_the_wrong_form_shows_the_right_form(write: Write, text: str) -> None:
    assert "section.key=value" in message(write(), text)


def test_extends_merges_sections_and_replaces_lists_along_a_chain(write: Write) -> None:
    write(
        "training: {iterations: 5, schedule: linear}\nrewards: [{rule: accuracy}, {rule: format}]\n", "a.yaml"
    )
    write("extends: ../a.yaml\ntraining: {iterations: 6}\nrewards: [{rule: choice}]\n", "sub/b.yaml", base="")
    config = load_config(write("extends: sub/b.yaml\nseed: 9\n", "c.yaml", base=""))
    assert (config.training.iterations, config.training.schedule, config.seed) == (6, "linear", 9)
    assert [reward.rule for reward in config.rewards] == ["choice"]


def test_a_part_of_another_name_does_not_inherit_options(write: Write) -> None:
    write(name="a.yaml")
    text = (
        "extends: a.yaml\nalgorithm:\n  surrogate: {name: ppo}\n  advantage: {name: group_mean, scale: 2}\n"
    )
    config = load_config(write(text, "b.yaml", base=""))
    assert config.algorithm.surrogate.options == {}
    assert config.algorithm.advantage.options == {"weight": "std", "scale": 2}


def test_a_run_name_in_the_child_keeps_the_rest_of_the_parent(write: Write) -> None:
    write("name: parent\nseed: 4\n", "a.yaml")
    config = load_config(write("extends: a.yaml\nname: child\n", "b.yaml", base=""))
    assert (config.name, config.seed) == ("child", 4)


def test_a_cycle_of_extends_is_named(write: Write) -> None:
    write("extends: b.yaml\n", "a.yaml")
    assert "cycle: b.yaml → a.yaml → b.yaml" in message(write("extends: a.yaml\n", "b.yaml"))


def test_extends_of_a_missing_file_names_both_files(write: Write) -> None:
    text = message(write("extends: nowhere.yaml\n"))
    assert "run.yaml" in text
    assert "nowhere.yaml" in text


def test_extends_takes_a_shipped_config_where_no_file_has_its_name(write: Write) -> None:
    for name in ("quickstart", "quickstart.yaml"):
        config = load_config(write(f"extends: {name}\nname: mine\n", base=""))
        assert (config.name, config.policy.model) == ("mine", "embedded:tiny")
    beside = write("seed: 77\n", "quickstart.yaml")
    assert load_config(write(f"extends: {beside.name}\n", base="")).seed == 77
    assert "no shipped config of this name" in message(write("extends: ../quickstart.yaml\n", base=""))


def test_files_of_rules_environments_and_tools_are_found_beside_the_config(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("")
    file = write(
        "rewards: [{rule: mine.py:a}, {rule: other.py:b}]\nrollout:\n  environment: {name: mine.py:e, "
        "options: {tools: [zoom, mine.py:t], environment: mine.py:E}}\n"
    )
    monkeypatch.chdir("/")
    config = load_config(file)
    assert [reward.rule for reward in config.rewards] == [f"{tmp_path}/mine.py:a", "other.py:b"]
    chosen = config.rollout.environment
    assert chosen is not None
    assert chosen.name == f"{tmp_path}/mine.py:e"
    wanted = {"tools": ["zoom", f"{tmp_path}/mine.py:t"], "environment": f"{tmp_path}/mine.py:E"}
    assert chosen.options == wanted


def test_a_missing_config_lists_the_shipped_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(BASE)
    monkeypatch.setattr(config_loading, "SHIPPED", tmp_path)
    text = message(Path("quickstrt"))
    assert "config quickstrt does not exist" in text
    assert "Did you mean quickstart?" in text


def test_a_shipped_config_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "qwen2.5-vl.yaml").write_text(BASE + "seed: 5\n")
    monkeypatch.setattr(config_loading, "SHIPPED", tmp_path)
    assert load_config(Path("qwen2.5-vl")).seed == 5


def test_a_path_beside_the_config_file_takes_precedence_over_the_current_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "conf"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").touch()
    (tmp_path / "here" / "only.jsonl").touch()
    monkeypatch.chdir(tmp_path / "here")
    text = BASE.replace('"generated:clock"', "rows.jsonl") + "seed: 1\n"
    config = load_config(write(text, "conf/run.yaml", base=""), ["data.eval.path=only.jsonl"])
    assert config.data.train.path == str(tmp_path / "conf" / "rows.jsonl")
    assert config.data.eval is not None
    assert config.data.eval.path == str(tmp_path / "here" / "only.jsonl")


def test_a_hub_name_stays_as_written(write: Write) -> None:
    config = load_config(write(), ["policy.model=Qwen/Qwen2.5-VL-7B-Instruct"])
    assert config.policy.model == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_a_saved_config_loads_to_an_equal_one_from_another_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [
        "algorithm.surrogate.bound=.inf",
        "policy.revision='1e-6'",
        "policy.system_prompt='no: # \"x\"\\n 思考'",
        "training.betas=[0.9, 0.95]",
        "output=runs/x",
        "policy.lora={rank: 2}",
        "rewards=[{rule: accuracy, options: {nested: {1e-6: [yes, 012, null]}}}]".replace("1e-6:", "'1e-6':"),
    ]
    config = load_config(write(), overrides)
    assert math.isinf(config.algorithm.surrogate.options["bound"])
    save_config(config, tmp_path / "run" / "config.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(tmp_path / "run" / "config.yaml") == config


SHORT = 'policy: {model: "embedded:tiny"}\ndata: {train: {path: "generated:clock"}}\n'
RECIPE = {
    "advantage": {"name": "group", "weight": "std"},
    "surrogate": {"name": "clip", "low": 0.2, "high": 0.3},
    "regularizers": [{"name": "drift", "alpha": 0.01}],
    "aggregation": {"name": "token_mean"},
}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_cpgd.config.loading.load_recipe", {"toy": RECIPE}.__getitem__)


@pytest.mark.usefixtures("recipe")
def test_a_recipe_fills_in_the_missing_keys(write: Write) -> None:
    text = SHORT + "algorithm: {recipe: toy, surrogate: {high: 0.5}}\n"
    algorithm = load_config(write(text, base="")).algorithm
    assert algorithm.surrogate.name == "clip"
    assert algorithm.surrogate.options == {"low": 0.2, "high": 0.5}
    assert algorithm.advantage.options == {"weight": "std"}
    assert algorithm.recipe == "toy"


@pytest.mark.usefixtures("recipe")
def test_overrides_choose_the_recipe_and_change_its_entries(write: Write) -> None:
    overrides = [
        "algorithm.recipe=toy",
        "algorithm.regularizers.0.alpha=1e-3",
        "algorithm.surrogate.name=ppo",
    ]
    algorithm = load_config(write(SHORT, base=""), overrides).algorithm
    assert algorithm.regularizers[0].options == {"alpha": 0.001}
    assert (algorithm.surrogate.name, algorithm.surrogate.options) == ("ppo", {})
    assert RECIPE["regularizers"] == [{"name": "drift", "alpha": 0.01}]


@pytest.mark.usefixtures("recipe")
def test_an_empty_list_replaces_the_recipes_list(write: Write) -> None:
    config = load_config(write(SHORT, base=""), ["algorithm.recipe=toy", "algorithm.regularizers=[]"])
    assert config.algorithm.regularizers == []


def test_a_saved_config_with_a_real_recipe_loads_to_an_equal_one(write: Write, tmp_path: Path) -> None:
    config = load_config(write(SHORT, base=""), ["algorithm.recipe=cpgd"])
    save_config(config, tmp_path / "config.yaml")
    assert "alpha: 0.01" in (tmp_path / "config.yaml").read_text()
    assert load_config(tmp_path / "config.yaml") == config


def test_an_unknown_recipe_is_a_user_error(write: Write) -> None:
    assert "cpgd" in message(write(SHORT, base=""), "algorithm.recipe=cpdg")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", ".."])
def test_a_name_that_leads_out_of_the_folder_of_runs_is_refused_without_an_output(
    write: Write, name: str
) -> None:
    text = message(write(f"name: {name}\n"))
    assert f"name: {name!r} would put the run outside of runs/" in text
    assert "set output" in text
    assert load_config(write(f"name: {name}\noutput: there\n")).folder == Path("there")


@pytest.mark.parametrize("name", ["a", "group/a", "a..b", "..a", "~", "a b"])
def test_other_names_are_folders_within_that_of_the_runs(write: Write, name: str) -> None:
    assert load_config(write(f'name: "{name}"\n')).folder == Path("runs") / name
