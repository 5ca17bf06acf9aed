"""Complete runs in this process: files, checkpoints, exact results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.training.learner import Learner
from mm_cpgd.training.run import train
from mm_cpgd.training.trainer import Trainer
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
REFERENCE = "algorithm.regularizers=[{name: kl, coefficient: 0.1}]"
ONE_STEP = ("training.mini_batch_prompts=4", "training.inner_epochs=1")
NO_EVALUATION = ("data.eval=null",)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "final" / "model.safetensors")


@pytest.fixture
def kept_policies(monkeypatch: pytest.MonkeyPatch) -> list[Policy]:
    """The policies that runs load."""
    loaded: list[Policy] = []

    def load(*arguments: Any, **options: Any) -> Policy:
        loaded.append(load_policy(*arguments, **options))
        return loaded[-1]

    monkeypatch.setattr("mm_cpgd.training.placement.load_policy", load)
    return loaded


def test_the_micro_batch_changes_neither_metrics_nor_weights(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    sizes = (1, 100, 10000)
    for size in sizes:
        overrides = [f"training.micro_batch_tokens={size}", f"output={tmp_path / str(size)}"]
        # Adam turns rounding into steps of the size of the learning rate where a gradient is next to zero.
        shorter = ["training.iterations=2", "training.learning_rate=1e-5"]
        trainer_jobs.run(yaml, [*overrides, *shorter, *NO_EVALUATION])
    expected, expected_rows = weights(tmp_path / "10000"), read_rows(tmp_path / "10000")
    for size in sizes[:2]:
        for found, row in zip(read_rows(tmp_path / str(size)), expected_rows, strict=True):
            assert found == pytest.approx(row, rel=1e-5, abs=1e-6)
        for name, value in weights(tmp_path / str(size)).items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sft", [False, True])
def test_bfloat16_weights_that_do_not_move_are_reported(
    yaml: Path, tmp_path: Path, read_rows: Rows, sft: bool
) -> None:
    rate = ["training.iterations=2", "training.learning_rate=1e-6", *NO_EVALUATION]
    rate += ["sft.steps=2", "rollout.max_new_tokens=64"] if sft else []
    for dtype, expected in (("bfloat16", 1), ("float32", 0)):
        overrides = [f"policy.dtype={dtype}", f"output={tmp_path / dtype}", *rate]
        _, output = trainer_jobs.run(yaml, overrides, imitate=sft)
        assert output.count("policy.dtype=float32") == expected
        shares = [row["optimizer/weights_changed"] for row in read_rows(tmp_path / dtype)]
        assert len(shares) == 2
        assert all(share < 0.1 if expected else share > 0.95 for share in shares)


def test_sharing_prefixes_changes_neither_metrics_nor_weights(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    for name in ("true", "false"):
        overrides = [f"rollout.shared_prefix={name}", f"output={tmp_path / name}", "training.iterations=2"]
        trainer_jobs.run(yaml, [*overrides, "training.learning_rate=1e-5", *NO_EVALUATION])
    for found, row in zip(read_rows(tmp_path / "true"), read_rows(tmp_path / "false"), strict=True):
        assert found == pytest.approx(row, rel=1e-4, abs=1e-6)
    expected = weights(tmp_path / "false")
    for name, value in weights(tmp_path / "true").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


def test_the_run_folder_holds_everything_that_a_run_promises(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    summary, output = trainer_jobs.run(yaml, ["evaluation.every=1"], report=True)
    folder = tmp_path / "run"
    names = "config.yaml metrics.jsonl rollouts checkpoints final summary.json report.html quarantine.jsonl"
    assert {*names.split()} <= {entry.name for entry in folder.iterdir()}
    assert "training: 12 of 12 rows" in output
    # Evaluated before, on the way and after: each iteration has one row, the last included.
    assert [row["iteration"] for row in read_rows(folder)] == [0, 1, 2, 3]
    assert all("eval/accuracy" in row for row in read_rows(folder))
    assert summary["accuracy"]["after"] == read_rows(folder)[-1]["eval/accuracy"]
    assert len(list((folder / "rollouts").glob("iteration-*.jsonl"))) == 3
    load_policy(PolicyConfig(model=str(folder / "final")))


def test_a_finished_run_is_resumed_without_a_change(yaml: Path, tmp_path: Path) -> None:
    trainer_jobs.run(yaml, ["training.iterations=2"])
    folder = tmp_path / "run"
    before = (folder / "metrics.jsonl").read_bytes(), (folder / "final" / "model.safetensors").read_bytes()
    summary = json.loads((folder / "summary.json").read_text())
    again, output = trainer_jobs.run(yaml, ["training.iterations=2"], resume=True)
    assert "resumed after iteration 2 of 2" in output
    after = (folder / "metrics.jsonl").read_bytes(), (folder / "final" / "model.safetensors").read_bytes()
    assert after == before
    assert again == summary


def test_an_existing_run_is_refused_and_a_failed_start_is_not_one(yaml: Path, tmp_path: Path) -> None:
    broken = ["data.train.path=" + str(tmp_path / "missing.jsonl")]
    with pytest.raises(ValueError, match=r"missing\.jsonl"):
        trainer_jobs.run(yaml, broken)
    trainer_jobs.run(yaml, ["training.iterations=1", *NO_EVALUATION])
    with pytest.raises(UserError, match="already holds a run"):
        trainer_jobs.run(yaml)
    trainer_jobs.run(yaml, ["training.iterations=1", *NO_EVALUATION], overwrite=True)


def test_the_best_checkpoint_stays_beside_the_newest(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.1, math.nan, 0.9, 0.4, 0.6])

    def scripted(*_: Any, **__: Any) -> Callable[..., dict[str, float]]:
        return lambda should_stop: {"eval/accuracy": next(accuracies), "eval/n": 4.0}

    config = load_config(yaml, ["evaluation.every=1", "checkpoint.keep=1", "training.iterations=4"])
    monkeypatch.setattr("mm_cpgd.training.run.write_report", lambda folder: None)
    monkeypatch.setattr("mm_cpgd.training.run.held_out_evaluator", scripted)
    summary = train(config, console=Console(quiet=True))
    assert summary["best"] == {"iteration": 2, "accuracy": 0.9}
    kept = sorted(entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-2", "step-4"]


def test_an_iteration_whose_prompts_are_all_filtered_is_logged_and_changes_nothing(
    yaml: Path, tmp_path: Path, read_rows: Rows, wordy_folder: Path
) -> None:
    with pytest.raises(RunEnded, match="the selection kept no prompt"):
        trainer_jobs.run(yaml, ["algorithm.selection=[{name: accuracy_filter, low: 0.99, high: 1}]"])
    _, *iterations = read_rows(tmp_path / "run")
    assert [row["groups/kept"] for row in iterations] == [0.0, 0.0, 0.0]
    assert [row["optimizer/skipped"] for row in iterations] == [0.0, 0.0, 0.0]
    assert all("objective/loss" not in row for row in iterations)
    before = load_file(wordy_folder / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path / "run").items())


def test_dynamic_sampling_with_an_overlong_penalty_runs(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    trainer_jobs.run(yaml, ["algorithm.recipe=dapo", "training.iterations=1", *NO_EVALUATION])
    (row,) = read_rows(tmp_path / "run")
    assert row["groups/rounds"] >= 1
    assert math.isfinite(row["objective/loss"])


def test_unscored_completions_are_counted_and_not_trained_on(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    rules = f"rewards=[{{rule: '{tmp_path}/rules.py:picky'}}]"
    trainer_jobs.run(yaml, [rules, "training.iterations=1", *NO_EVALUATION])
    (row,) = read_rows(tmp_path / "run")
    rollouts = (tmp_path / "run" / "rollouts" / "iteration-000001.jsonl").read_text().splitlines()
    completions = [one for line in rollouts for one in json.loads(line)["completions"]]
    unscored = [one for one in completions if len(one["text"]) % 2]
    assert row["reward/unscored"] == len(unscored) / 16 > 0
    assert {one["advantage"] for one in unscored} == {None}
    assert all(one["total"] is None for one in unscored)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("lora", ["null", "{rank: 4}"])
def test_the_reference_is_the_policy_that_training_started_from(
    yaml: Path, tmp_path: Path, read_rows: Rows, kept_policies: list[Policy], lora: str, precision: str
) -> None:
    options = [f"policy.lora={lora}", f"training.mixed_precision={precision}", "training.iterations=2"]
    trainer_jobs.run(yaml, [REFERENCE, *options, *ONE_STEP, *NO_EVALUATION])
    first, second = read_rows(tmp_path / "run")
    # Exactly equal before the first step, also with autocast.
    assert first["policy/reference_kl"] == 0
    assert second["policy/reference_kl"] > 1e-5
    assert (kept_policies[0].reference is None) == (lora != "null")


def test_without_a_reference_term_no_reference_is_held(yaml: Path, kept_policies: list[Policy]) -> None:
    trainer_jobs.run(yaml, ["training.iterations=1", *NO_EVALUATION])
    assert kept_policies[0].reference is None


def test_adapters_are_all_that_is_trained_and_saved(yaml: Path, tmp_path: Path, wordy_folder: Path) -> None:
    trainer_jobs.run(yaml, ["policy.lora={rank: 4}", "training.iterations=2", *NO_EVALUATION])
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-2" / "weights.safetensors")
    assert saved
    assert all("lora_" in name for name in saved)
    before, after = load_file(wordy_folder / "model.safetensors"), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("visual" in name or "embed" in name for name in changed)


def test_bf16_autocast_trains_float32_weights(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    trainer_jobs.run(yaml, ["training.mixed_precision=bf16", "evaluation.every=1"])
    assert all(math.isfinite(row["objective/loss"]) for row in read_rows(tmp_path / "run")[1:])
    assert {value.dtype for value in weights(tmp_path / "run").values()} == {torch.float32}


def test_tensorboard_gets_the_metrics_where_configured(yaml: Path, tmp_path: Path) -> None:
    trainer_jobs.run(yaml, ["tracking.tools=[tensorboard]", "training.iterations=1", *NO_EVALUATION])
    events = list((tmp_path / "run" / "tracking").rglob("events.out.tfevents.*"))
    assert any(b"policy/drift" in file.read_bytes() for file in events)


def test_a_tracker_that_is_not_installed_is_a_user_error(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_cpgd.distributed.is_wandb_available", lambda: False)
    with pytest.raises(UserError, match=r"wandb is not installed; pip install 'mm-cpgd\[wandb\]'"):
        trainer_jobs.run(yaml, ["tracking.tools=[wandb]"])


@pytest.fixture
def losses_break(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let every loss from the given one on be NaN."""
    original = Learner._loss

    def start(number: int) -> None:
        count = 0

        def loss(self: Learner, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            value, metrics = original(self, *arguments)
            return (value * math.nan if count >= number else value), metrics

        monkeypatch.setattr(Learner, "_loss", loss)

    return start


def test_a_run_that_is_no_longer_finite_ends_and_names_the_rollouts(
    yaml: Path, tmp_path: Path, losses_break: Callable[[int], None]
) -> None:
    losses_break(1 + 4)  # the four steps of the first iteration are one micro-batch each
    options = ["training.max_skipped_steps=3", "tracking.rollouts_every=100", *NO_EVALUATION]
    with pytest.raises(RunEnded) as caught:
        trainer_jobs.run(yaml, options)
    file = tmp_path / "run" / "rollouts" / "iteration-000002.jsonl"
    assert caught.value.exit_code == 1
    assert "3 optimizer steps in a row" in str(caught.value)
    assert str(file) in str(caught.value)
    assert len(file.read_text().splitlines()) == 4


def test_skipped_steps_are_counted_and_leave_the_weights_as_they_were(
    yaml: Path, tmp_path: Path, read_rows: Rows, losses_break: Callable[[int], None]
) -> None:
    losses_break(1 + 4)
    trainer_jobs.run(yaml, ["training.max_skipped_steps=99", *NO_EVALUATION])
    assert [row["optimizer/skipped"] for row in read_rows(tmp_path / "run")] == [0.0, 4.0, 4.0]
    checkpoints = tmp_path / "run" / "checkpoints"
    second, third = (load_file(checkpoints / f"step-{n}" / "weights.safetensors") for n in (2, 3))
    assert all(torch.equal(second[name], third[name]) for name in second)
    assert all(value.isfinite().all() for value in second.values())


def test_supervised_fine_tuning_lowers_the_negative_log_likelihood(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    options = ["rollout.max_new_tokens=200", "sft.batch=12", "sft.steps=4", *NO_EVALUATION]
    trainer_jobs.run(yaml, options, imitate=True)
    found = read_rows(tmp_path / "run")
    assert [row["iteration"] for row in found] == [1, 2, 3, 4]
    losses = [row["sft/loss"] for row in found]
    assert losses[-1] < losses[0] - 0.1
    assert not {"policy/drift", "policy/ratio_mean", "policy/clip_fraction"} & found[0].keys()


def test_the_first_loss_of_fine_tuning_is_the_token_mean_over_the_solutions(
    yaml: Path, tmp_path: Path, read_rows: Rows, kept_policies: list[Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[Trainer] = []
    original = Trainer.run

    def run(self: Trainer, progress: Any) -> None:
        trainers.append(self)
        original(self, progress)

    monkeypatch.setattr(Trainer, "run", run)
    options = ["rollout.max_new_tokens=200", "sft.batch=12", "sft.steps=1", "training.micro_batch_tokens=500"]
    trainer_jobs.run(yaml, [*options, "training.learning_rate=1e-12", *NO_EVALUATION], imitate=True)
    policy, source = kept_policies[0], trainers[0].source
    total, count = 0.0, 0
    for example in source.examples:  # type: ignore[attr-defined]
        ids = policy.tokenizer(example.solution)["input_ids"] + [policy.tokenizer.eos_token_id]
        tokens = torch.tensor([ids])
        with torch.no_grad():
            logprobs, _ = policy([policy.encoder.encode(example)], tokens, torch.ones_like(tokens).bool())
        total, count = total - float(logprobs.double().sum()), count + len(ids)
    (row,) = read_rows(tmp_path / "run")
    assert row["sft/loss"] == pytest.approx(total / count, rel=1e-5)
    assert row["tokens/sampled"] == count
