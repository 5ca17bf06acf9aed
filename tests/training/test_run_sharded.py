"""Runs with sharded weights give the results of one process, and resume on any number of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.families.build import build_family
from mm_cpgd.checkpoint.folder import newest_checkpoint
from mm_cpgd.checkpoint.serialization import load_state
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import load_policy
from mm_cpgd.training.saving.shards import FOLDER
from tests.fakes import training_runs as jobs
from tests.fakes.draws import clear_draws
from tests.paths import ROOT

Rows = Callable[[Path], list[dict[str, Any]]]
SHARDED = "distributed.strategy=fsdp2"
# Micro-batches of one or two rows: processes have different numbers of them, and some have no image.
SMALL = ("training.micro_batch_tokens=60", "training.iterations=2", "evaluation.after=false")
KL = "algorithm.regularizers=[{name: kl, coefficient: 0.1}]"
CONVERSATIONS = (
    f"rollout.environment.name={ROOT}/tests/fakes/environments.py:Looking",
    "rollout.environment.scores={seen: 1.0}",
)
ROLLBACK = ("guard.action=rollback", "guard.settle=0", "training.learning_rate=3e-2")


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in (folder / "final").glob("*.safetensors"):
        found |= load_file(file)
    return found


def assert_same_run(found: Path, expected: Path, read_rows: Rows, tolerance: float = 1e-4) -> None:
    for one, other in zip(read_rows(found), read_rows(expected), strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=1e-5, nan_ok=True)
    one, other = final_weights(found), final_weights(expected)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "options"),
    [
        (2, ()),
        (4, ("rollout.prompts=8", "training.mini_batch_prompts=4")),
        (2, ("policy.freeze_vision=false", "policy.gradient_checkpointing=true")),
        (2, ("policy.lora={rank: 4}", KL)),
        (2, ("policy.lora={rank: 4, vision: true, dora: true}",)),
        (2, (KL, "policy.freeze_vision=false", "distributed.reshard_after_forward=false", "seed=4")),
        (2, ("rollout.shared_prefix=false", "rollout.temperature=1.3", "rollout.top_k=60")),
        (2, ("distributed.cpu_offload=true",)),
        (2, ("policy.compile=true", "policy.gradient_checkpointing=true", KL)),
        (2, ("policy.gradient_checkpointing=selective",)),
    ],
    ids=[
        "plain",
        "four",
        "vision",
        "lora",
        "vision-lora",
        "reference",
        "padded",
        "offload",
        "compiled",
        "selective",
    ],
)
def test_shards_give_the_results_of_one_process(
    yaml: Path, tmp_path: Path, read_rows: Rows, processes: int, options: tuple[str, ...]
) -> None:
    with clear_draws():
        jobs.run(yaml, [*SMALL, *options, f"output={tmp_path / 'one'}"])
    assert jobs.in_processes(processes, yaml, [*SMALL, *options, SHARDED]) == [0] * processes
    assert_same_run(tmp_path / "run", tmp_path / "one", read_rows)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "llava"])
def test_other_families_are_sharded_likewise(
    yaml: Path, tmp_path: Path, tiny_folder: Path, read_rows: Rows, family: str
) -> None:
    model = build_family(family, tiny_folder, tmp_path / "model")
    frozen = str(family == "llava").lower()
    options = [*SMALL, f"policy.model={model}", f"policy.freeze_vision={frozen}"]
    with clear_draws():
        jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    assert jobs.in_two_processes(yaml, [*options, SHARDED]) == [0, 0]
    assert_same_run(tmp_path / "run", tmp_path / "one", read_rows)


@pytest.mark.slow
def test_fine_tuning_in_shards_gives_the_results_of_one_process(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    options = ["rollout.max_new_tokens=200", "data.eval=null"]
    jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"], imitate=True)
    assert jobs.in_two_processes(yaml, [*options, SHARDED], imitate=True) == [0, 0]
    assert_same_run(tmp_path / "run", tmp_path / "one", read_rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        (2, 2, ()),
        (2, 4, ("checkpoint.background=true",)),
        (4, 1, ("policy.lora={rank: 4}",)),
        (1, 2, ("checkpoint.every=1",)),
        (2, 2, (*ROLLBACK, "guard.copies=disk")),
        (2, 1, ROLLBACK),
        (1, 2, ROLLBACK),
    ],
    ids=["same", "background", "to-one", "from-one", "guard", "guard-to-one", "guard-from-one"],
)
def test_a_checkpoint_is_resumed_on_another_number_of_processes(
    yaml: Path, tmp_path: Path, read_rows: Rows, before: int, after: int, options: tuple[str, ...]
) -> None:
    common = ["evaluation.after=false", *options]
    with clear_draws():
        jobs.run(yaml, [*common, f"output={tmp_path / 'one'}"])
    assert jobs.in_processes(before, yaml, [*common, SHARDED, "training.iterations=2"]) == [0] * before
    place = newest_checkpoint(tmp_path / "run" / "checkpoints", print)
    assert place is not None
    assert (place / FOLDER).is_dir() == (before > 1)
    assert jobs.in_processes(after, yaml, [*common, SHARDED], resume=True) == [0] * after
    # The optimizer divides by the square root of small numbers, which differ in their last digits.
    assert_same_run(tmp_path / "run", tmp_path / "one", read_rows, tolerance=5e-4)


def slow_disk() -> None:
    """Let a checkpoint in the background take longer than an iteration."""
    import time

    from mm_cpgd.training.saving import saver

    write = saver.write_shards

    def slowly(*arguments: Any) -> None:
        time.sleep(2)
        write(*arguments)
        time.sleep(2)

    saver.write_shards = slowly


@pytest.mark.slow
def test_a_checkpoint_in_the_background_is_of_the_moment_it_was_begun(yaml: Path, tmp_path: Path) -> None:
    options = ["data.eval=null", "training.iterations=2", SHARDED, "checkpoint.every=1"]
    options += ["checkpoint.background=true", "checkpoint.keep=9"]
    assert jobs.in_two_processes(yaml, options, slow_disk) == [0, 0]
    for number in (1, 2):
        saved = load_state(tmp_path / "run" / "checkpoints" / f"step-{number}" / "run.safetensors")["shared"]
        counts = saved["optimizer"]["counts"].values()
        assert {float(count["step"]) for count in counts} == {saved["scheduler"]["last_epoch"]}


@pytest.mark.slow
def test_the_final_folder_is_an_ordinary_model(yaml: Path, tmp_path: Path) -> None:
    assert jobs.in_two_processes(yaml, [*SMALL, SHARDED, "policy.lora={rank: 4}"]) == [0, 0]
    folder = tmp_path / "run" / "final"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {"model-00001-of-00001.safetensors"}
    loaded = load_policy(PolicyConfig(model=str(folder)))
    assert type(loaded.model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert loaded.model.config.architectures == ["Qwen2_5_VLForConditionalGeneration"]


@pytest.mark.slow
def test_a_trained_vision_tower_without_shared_prefixes_is_refused(yaml: Path, tmp_path: Path) -> None:
    options = [SHARDED, "policy.freeze_vision=false", "rollout.shared_prefix=false"]
    assert jobs.in_two_processes(yaml, options) == [2, 2]
    printed = (tmp_path / "stderr-0").read_text()
    assert "freeze the vision tower" in printed
    assert "Traceback" not in printed


def test_one_process_has_nothing_to_shard(yaml: Path) -> None:
    _, printed = jobs.run(yaml, [*SMALL, SHARDED, "data.eval=null"])
    assert "nothing to shard" in printed


def full(*arguments: Any) -> None:
    raise OSError(28, "No space left on device")


def fill_disk_of_second() -> None:
    """Let the second process fail to write its part of a checkpoint."""
    import os

    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    if os.environ["RANK"] == "1":
        HuggingFaceStorageWriter.write_data = full  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("background", ["false", "true"])
def test_a_full_disk_of_one_process_ends_all_with_one_message(
    yaml: Path, tmp_path: Path, background: str
) -> None:
    options = ["data.eval=null", "training.iterations=2", SHARDED, f"checkpoint.background={background}"]
    assert jobs.in_two_processes(yaml, options, fill_disk_of_second) == [2, 2]
    printed = (tmp_path / "stderr-0").read_text()
    assert "the disk is full" in printed
    assert "Traceback" not in printed
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_shards_keep_the_adapters_of_the_start_as_reference(
    yaml: Path, tmp_path: Path, tiny_folder: Path, read_rows: Rows
) -> None:
    torch.manual_seed(0)
    first = load_policy(PolicyConfig.model_validate({"model": str(tiny_folder), "lora": {"rank": 2}}))
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05)
    first.save(tmp_path / "first")
    lora = f"{{rank: 2, adapter: '{tmp_path / 'first' / 'adapter'}'}}"
    options = [*SMALL, f"policy.model={tiny_folder}", f"policy.lora={lora}", KL]
    with clear_draws():
        jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    assert jobs.in_processes(2, yaml, [*options, SHARDED]) == [0, 0]
    assert_same_run(tmp_path / "run", tmp_path / "one", read_rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [("policy.freeze_vision=false",), ("policy.lora={rank: 4}", KL, "rollout.environment.returns=by_turn")],
    ids=["vision", "lora"],
)
def test_conversations_in_shards_are_those_of_one_process(
    yaml: Path, tmp_path: Path, read_rows: Rows, options: tuple[str, ...]
) -> None:
    every = [*SMALL, *CONVERSATIONS, *options]
    jobs.run(yaml, [*every, f"output={tmp_path / 'one'}"])
    assert jobs.in_two_processes(yaml, [*every, SHARDED]) == [0, 0]
    # Their lengths differ by process, and so does whether a micro-batch has pictures that tools show.
    assert all(row["conversation/images"] > 0 for row in read_rows(tmp_path / "run") if row["iteration"])
    assert_same_run(tmp_path / "run", tmp_path / "one", read_rows)
