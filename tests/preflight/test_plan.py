"""Dry run of a config: its text, and the errors that end it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from data import load_examples
from data.example import DataError
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import PromptEncoder, load_processor
from mm_cpgd.preflight.plan import print_plan


def planned(config: RunConfig, *, with_processor: bool = True, width: int = 200) -> str:
    stream = io.StringIO()
    print_plan(config, Console(file=stream, width=width), with_processor=with_processor)
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


def test_without_the_processor_a_model_out_of_reach_leaves_only_its_own_numbers_unknown(
    configured: Callable[..., RunConfig],
) -> None:
    text = planned(configured("nobody/no-such-model"), with_processor=False)
    assert "unknown: the model is neither a local folder nor in the hub's cache" in text
    assert "6 used, 0 unusable" in text
    assert "not counted (no processor)" in text


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


def test_several_processes_share_the_completions(
    tiny_folder: Path, configured: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "= 8, 2 on each of 4 processes" in planned(configured(tiny_folder))
