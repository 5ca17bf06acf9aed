import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from data import load_examples
from data.example import DataError
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import LoraConfig, PolicyConfig, RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, PromptEncoder, load_policy, load_processor
from mm_cpgd.preflight.memory import Blocks, ModelSize, Part, estimate_memory, measure_model, total_of
from mm_cpgd.preflight.plan import print_plan

# Small round numbers: 1,000 weights of 4 bytes, 400 of them trained.
SIZE = ModelSize("Toy", 1000, 0, 400, 600, 4, 50, Blocks(3, 8, 16, 4), Blocks(2, 4, 8, 4))
BASE = [
    "data.train.path=generated:clock",
    "data.train.limit=6",
    "data.eval=null",
    "rollout.prompts=4",
    "rollout.completions=2",
    "rollout.batch_prompts=4",
    "rollout.max_new_tokens=5",
    "training.micro_batch_tokens=30",
    "training.mixed_precision=no",
]


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., RunConfig]:
    """Make a small run's config; its results would go to a folder of this test."""

    def make(model: Path | str, *overrides: str) -> RunConfig:
        file = tmp_path / "run.yaml"
        file.write_text(f"policy: {{model: {model}}}\noutput: {tmp_path}/out\nalgorithm: {{recipe: cpgd}}\n")
        file.write_text(file.read_text() + "data: {train: {path: x}}\n")
        return load_config(file, [*BASE, *overrides])

    return make


def planned(config: RunConfig, *, with_processor: bool = True, width: int = 200) -> str:
    stream = io.StringIO()
    print_plan(config, Console(file=stream, width=width), with_processor=with_processor)
    return stream.getvalue()


def parts(config: RunConfig, size: ModelSize = SIZE, reference: bool = False) -> dict[str, Part]:
    return {part.name: part for part in estimate_memory(config, size, 10, reference=reference)}


def test_weights_gradients_and_moments_are_bytes_times_parameters(
    configured: Callable[..., RunConfig],
) -> None:
    found = parts(configured("toy"))
    assert (found["weights"].update, found["weights"].rollout) == (4000, 4000)
    assert (found["gradients"].update, found["gradients"].rollout) == (1600, 0)
    assert (found["optimizer state"].update, found["optimizer state"].rollout) == (3200, 3200)


def test_a_reference_policy_is_counted_only_where_the_objective_needs_one(
    configured: Callable[..., RunConfig],
) -> None:
    assert "reference policy" not in parts(configured("toy"))
    assert parts(configured("toy"), reference=True)["reference policy"].update == 4000


def test_adapters_need_no_copy_of_the_policy_for_a_reference(configured: Callable[..., RunConfig]) -> None:
    lora = replace(SIZE, adapters=40, trained=40, weight_bytes=2)
    found = parts(configured("toy"), lora, reference=True)
    assert "reference policy" not in found
    assert found["weights"].update == 1000 * 2 + 40 * 4
    assert found["optimizer state"].update == 2 * 40 * 4


def test_mixed_precision_adds_two_bytes_for_every_float32_weight_that_is_trained(
    configured: Callable[..., RunConfig],
) -> None:
    config = configured("toy", "training.mixed_precision=bf16")
    assert parts(config)["bf16 copies of weights"].update == 800
    assert "bf16 copies of weights" not in parts(config, replace(SIZE, weight_bytes=2))


@pytest.mark.parametrize(("shared", "prompts"), [("true", 4), ("false", 8)])
def test_the_cache_holds_keys_and_values_of_every_prompt_or_its_copies_and_every_completion(
    configured: Callable[..., RunConfig], shared: str, prompts: int
) -> None:
    # 4 prompts × 2 completions, 10 and 5 tokens, 3 layers, keys and values of width 4, float32.
    config = configured("toy", f"rollout.shared_prefix={shared}")
    assert parts(config)["rollout: KV cache"].rollout == (prompts * 10 + 8 * 5) * 3 * 2 * 4 * 4


def test_gradient_checkpointing_keeps_layer_inputs_and_one_layer(
    configured: Callable[..., RunConfig],
) -> None:
    name = "activations of a micro-batch"
    whole = parts(configured("toy"))[name].update
    tokens = 2 * 15
    kept = parts(configured("toy", "policy.gradient_checkpointing=true"))[name].update
    assert kept == whole // 3 + tokens * 3 * 8 * 4


def test_a_trained_vision_tower_adds_activations(configured: Callable[..., RunConfig]) -> None:
    name = "activations of a micro-batch"
    frozen, trained = (
        parts(configured("toy", f"policy.freeze_vision={value}"))[name].update for value in ("true", "false")
    )
    assert trained > frozen


def test_the_total_is_the_sum_of_the_parts_in_each_phase() -> None:
    whole = total_of([Part("a", 1, 2, ""), Part("b", 10, 0, "")])
    assert (whole.update, whole.rollout) == (11, 2)


@pytest.mark.parametrize(
    "changes",
    [{}, {"freeze_vision": False}, {"lora": LoraConfig(rank=4)}, {"lora": LoraConfig(targets=["q_proj"])}],
)
def test_parameters_are_counted_without_weights_as_the_loaded_policy_counts_them(
    tiny_folder: Path, changes: dict[str, Any]
) -> None:
    config = PolicyConfig(model=str(tiny_folder), **changes)
    size = measure_model(config)
    loaded = list(load_policy(config).parameters())
    assert size.total + size.adapters == sum(p.numel() for p in loaded)
    assert size.trained == sum(p.numel() for p in loaded if p.requires_grad)


def test_the_estimate_of_activations_is_what_autograd_really_keeps(
    tiny_folder: Path, tiny_policy: Policy, configured: Callable[..., RunConfig]
) -> None:
    examples = load_examples("generated:all", limit=8).examples
    prompts = [tiny_policy.encoder.encode(example) for example in examples]
    longest = max(map(len, prompts))
    own = {parameter.untyped_storage().data_ptr() for parameter in tiny_policy.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tiny_policy(prompts, torch.full((8, 32), 100), torch.ones(8, 32, dtype=torch.bool))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    # Nothing is predicted behind a completion's last token.
    tokens = sum(map(len, prompts)) + 8 * 31
    config = configured(tiny_folder, f"training.micro_batch_tokens={tokens}", "rollout.max_new_tokens=32")
    size = measure_model(config.policy)
    named = {part.name: part for part in estimate_memory(config, size, longest, reference=False)}
    assert named["activations of a micro-batch"].update == pytest.approx(measured, rel=0.04)


def test_the_plan_names_rows_steps_parts_rewards_and_results(
    tiny_folder: Path, configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = configured(tiny_folder, "training.iterations=7", "training.mini_batch_prompts=2")
    text = planned(config)
    for told in (
        "Qwen2_5_VLForConditionalGeneration",
        "6 used, 0 unusable, 6 in all",
        "4 prompts × 2 completions = 8;",
        "2 prompts = 4 completions an optimizer step",
        "2 steps an iteration, 14 in 7 iterations",
        "policy_drift (alpha 0.01, cap 2)",
        "1 × accuracy",
        "0.5 × format",
        "KV cache",
        str(tmp_path / "out"),
    ):
        assert told in text


def test_the_plan_writes_nothing(
    tiny_folder: Path, configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    planned(configured(tiny_folder))
    assert not (tmp_path / "out").exists()


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


def test_bad_rows_below_the_allowed_share_are_shown_and_the_run_goes_on(
    tiny_folder: Path, configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    rows = [{"id": "a", "question": "1+1?", "answer": "2"}, {"id": "b", "question": "2+2?", "answer": ""}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = configured(tiny_folder, f"data.train.path={tmp_path}/rows.json", "data.max_bad_share=0.5")
    text = planned(config)
    assert "1 used, 1 unusable, 2 in all" in text
    assert "rows.json[1]: empty answer" in text


def test_what_rows_say_is_never_read_as_colour_or_style(
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
    assert "unknown: the model is neither a folder here nor in the hub's cache" in text
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
def test_what_would_end_the_run_ends_the_plan(
    tiny_folder: Path, configured: Callable[..., RunConfig], override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        planned(configured(tiny_folder, override))


def test_several_processes_share_the_completions(
    tiny_folder: Path, configured: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "= 8, 2 on each of 4 processes" in planned(configured(tiny_folder))
