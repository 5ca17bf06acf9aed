"""Dry run of a config: its text, and the errors that end it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from data import load_examples
from data.example import DataError
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import PromptEncoder, load_processor
from mm_cpgd.preflight import model_source
from mm_cpgd.preflight.plan import print_plan
from mm_cpgd.preflight.setting import Machines


def planned(
    config: RunConfig, *, with_processor: bool = True, width: int = 250, machines: Machines | None = None
) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    print_plan(config, console, with_processor=with_processor, machines=machines)
    return stream.getvalue()


def test_the_plan_names_rows_steps_parts_rewards_and_results(
    tiny_folder: Path, configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = configured(tiny_folder, "training.iterations=7", "training.mini_batch_prompts=2")
    text = planned(config)
    for expected in (
        "Qwen2_5_VLForConditionalGeneration",
        "6 used, 0 unusable, 6 in all",
        "4 prompts × 2 completions = 8;",
        "2 prompts = 4 completions per optimizer step",
        "2 steps per iteration, 14 in 7 iterations",
        "policy_drift (alpha 0.01, cap 2)",
        "1 × accuracy",
        "0.5 × format",
        "KV cache",
        str(tmp_path / "out"),
    ):
        assert expected in text


def test_the_plan_writes_nothing(
    tiny_folder: Path, configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    planned(configured(tiny_folder))
    assert not (tmp_path / "out").exists()


def test_what_accelerate_could_not_carry_out_is_refused(
    tiny_folder: Path, configured: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match="DeepSpeed is not supported"):
        planned(configured(tiny_folder))


def test_prompt_lengths_are_those_of_the_encoded_prompts(
    tiny_folder: Path, configured: Callable[..., RunConfig]
) -> None:
    config = configured(tiny_folder, "data.train.path=generated:clock,chart")
    encoder = PromptEncoder(load_processor(config.policy))
    lengths = {e.id: len(encoder.encode(e)) for e in load_examples("generated:clock,chart", limit=6).examples}
    text = planned(config)
    assert f"min {min(lengths.values())}" in text
    assert f"max {max(lengths.values())}" in text
    assert f"row {max(lengths, key=lambda name: lengths[name])}; 0 rows above" in text


def test_the_first_prompt_is_shown_with_its_image_tokens_counted(
    tiny_folder: Path, configured: Callable[..., RunConfig]
) -> None:
    assert "<|vision_start|><|image_pad|>×16<|vision_end|>" in planned(configured(tiny_folder))


def test_prompts_over_the_limit_are_counted_and_then_refuse_the_run(
    tiny_folder: Path, configured: Callable[..., RunConfig]
) -> None:
    stream = io.StringIO()
    config = configured(tiny_folder, "data.max_prompt_tokens=20")
    with pytest.raises(DataError, match=r"6 of 6 training rows cannot be used \(100.0%, .*allows 10.0%"):
        print_plan(config, Console(file=stream, width=200), with_processor=True)
    assert "6 rows above the limit of 20" in stream.getvalue()
    assert "prompt too long" in stream.getvalue()


def test_bad_rows_below_the_allowed_share_are_shown_and_the_plan_is_complete(
    tiny_folder: Path, configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    rows = [{"id": "a", "question": "1+1?", "answer": "2"}, {"id": "b", "question": "2+2?", "answer": ""}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = configured(tiny_folder, f"data.train.path={tmp_path}/rows.json", "data.max_bad_share=0.5")
    text = planned(config)
    assert "1 used, 1 unusable, 2 in all" in text
    assert "rows.json[1]: empty answer" in text


def test_text_of_rows_is_never_interpreted_as_markup(
    tiny_folder: Path, configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    rows = [{"id": "a", "question": "[bold red]what[/]?", "answer": "[/nothing]"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    text = planned(configured(tiny_folder, f"data.train.path={tmp_path}/rows.json"))
    assert "[bold red]what[/]?" in text
    assert "[/nothing]" in text


def test_the_plan_fits_into_eighty_columns(tiny_folder: Path, configured: Callable[..., RunConfig]) -> None:
    lines = planned(configured(tiny_folder), width=80).splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("with_processor", [True, False])
def test_a_model_out_of_reach_leaves_only_its_own_numbers_unknown(
    configured: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, with_processor: bool
) -> None:
    monkeypatch.setattr(model_source, "hub_reachable", lambda: False)
    text = planned(configured("nobody/no-such-model"), with_processor=with_processor)
    assert "unknown: policy.model='nobody/no-such-model' is neither a folder nor in the local cache" in text
    assert "give --model-config FILE" in text.replace("\n", " ")
    assert "6 used, 0 unusable" in text
    assert "not counted (" in text


def test_rows_out_of_reach_are_left_out_and_the_plan_is_made_at_the_limit(
    configured: Callable[..., RunConfig], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_source, "hub_reachable", lambda: False)
    text = planned(configured(tiny_folder, "data.train.path=nobody/no-such-rows"))
    assert "not read: the hub cannot be reached, and they are not in the cache" in text
    assert "Peak about" in text


def test_a_folder_with_a_config_alone_is_planned_at_the_limit_of_prompt_tokens(
    configured: Callable[..., RunConfig], tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    text = planned(configured(tmp_path / "bare"))
    assert "not counted (the model's processor is not here); the limit is 4,096" in text
    assert "Peak about" in text


def test_a_processor_that_is_there_and_broken_ends_the_plan(
    configured: Callable[..., RunConfig], tiny_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "broken")
    (tmp_path / "broken" / "chat_template.jinja").write_text("{{ nothing.at.all }}")
    with pytest.raises(UserError, match="chat template"):
        planned(configured(tmp_path / "broken"))


def test_the_published_setting_fits_on_eight_gpus_and_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_source, "hub_reachable", lambda: False)
    text = planned(load_config("qwen2_5_vl_7b_cpgd"), machines=Machines(8, 1, 80 * 2**30, True))
    assert "8.29 B, vision tower 676.55 M of them" in text
    assert "the dimensions that come with mm-cpgd" in text
    assert "8 processes, fsdp2: weights, gradients and optimizer state in shards" in text
    assert "Fits: " in text
    whole = load_config("qwen2_5_vl_7b_cpgd", ["distributed.strategy=ddp"])
    text = planned(whole, machines=Machines(8, 1, 80 * 2**30, True))
    assert "Does not fit: " in text
    assert "with distributed.strategy=fsdp2: " in text


@pytest.mark.parametrize(
    ("name", "machines"),
    [
        ("qwen2_5_vl_3b_lora_cpgd", Machines(1, 1, 24 * 2**30, True)),
        ("qwen2_5_vl_32b_cpgd", Machines(32, 4, 80 * 2**30, True)),
    ],
)
def test_the_other_published_sizes_fit_where_their_configs_say(
    monkeypatch: pytest.MonkeyPatch, name: str, machines: Machines
) -> None:
    monkeypatch.setattr(model_source, "hub_reachable", lambda: False)
    assert "Fits: " in planned(load_config(name), machines=machines)


def test_a_server_of_vllm_is_told_what_it_needs(
    tiny_folder: Path, configured: Callable[..., RunConfig]
) -> None:
    config = configured(tiny_folder, "rollout.engine=vllm", "rollout.vllm.mode=server")
    assert "Each vLLM server needs " in planned(config)
    assert "Each vLLM server" not in planned(configured(tiny_folder))


def test_with_the_processor_a_missing_model_is_one_message(configured: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match="no such folder"):
        planned(configured("./nowhere"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rollout.completions=1", "needs rollout.completions >= 2"),
        ("training.schedule=zigzag", "training.schedule='zigzag'"),
    ],
)
def test_an_error_that_would_end_the_run_ends_the_plan(
    tiny_folder: Path, configured: Callable[..., RunConfig], override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        planned(configured(tiny_folder, override))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "temperature 1 "),
        (
            ["rollout.temperature=0.7", "rollout.top_k=5"],
            "temperature 0.7, top-k 5, trained over the kept tokens",
        ),
        (["rollout.top_p=0.9", "rollout.cuts=reweight"], "top-p 0.9, trained over all tokens, reweighted"),
    ],
)
def test_the_plan_says_how_cuts_are_trained(
    tiny_folder: Path, configured: Callable[..., RunConfig], overrides: list[str], expected: str
) -> None:
    assert expected in planned(configured(tiny_folder, *overrides))


def test_a_budget_is_counted_as_it_deals_completions_out(
    tiny_folder: Path, configured: Callable[..., RunConfig]
) -> None:
    overrides = ["rollout.prompts=4", "rollout.completions=4", "algorithm.recipe=knapsack"]
    text = planned(configured(tiny_folder, *overrides))
    assert "4 prompts, 16 completions dealt out by knapsack" in text
    assert "1 to 13 completions of a prompt, in 16 of an iteration" in text
    assert "on average 16 completions per optimizer step" in text
    few = planned(configured(tiny_folder, *overrides, "algorithm.budget={name: knapsack, high: 6}"))
    assert "1 to 6 completions of a prompt" in few


def test_several_processes_share_the_completions(
    tiny_folder: Path, configured: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "= 8, 2 on each of 4 processes" in planned(configured(tiny_folder))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.prompts=8"], r"rollout\.prompts=8 must be a multiple of the 6 processes"),
        (["rollout.engine=vllm", "rollout.vllm.tensor_parallel=4"], "tensor_parallel=4"),
        (["rollout.engine=vllm", "rollout.ahead=1", "rollout.top_k=5"], r"rollout\.ahead=1"),
        (["guard.ignore=[nothing]"], "nothing"),
    ],
)
def test_what_would_end_the_run_at_its_start_ends_the_plan(
    tiny_folder: Path, configured: Callable[..., RunConfig], overrides: list[str], message: str
) -> None:
    config = configured(tiny_folder, "rollout.prompts=12", *overrides)
    with pytest.raises(UserError, match=message):
        planned(config, machines=Machines(6, 1, None, on_gpu=True))
