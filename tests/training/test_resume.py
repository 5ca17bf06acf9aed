"""Resumed runs with other settings, rows or files: what takes effect, what is noted, what is refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from data import Example, ImageRef
from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import LoraConfig, RunConfig
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.training import resume
from mm_cpgd.training.optimizer import OptimizerStep
from tests.fakes import training_runs as trainer_jobs
from tests.paths import DOCS

Rows = Callable[[Path], list[dict[str, Any]]]
QUICK = ("data.eval=null", "training.iterations=2")
GROUPS = (resume.FREE, resume.NOTED, resume.FIXED, resume.BY_ROWS, resume.BY_MODEL)
# Compared as a whole: lists, and sections that may be absent or have several forms.
WHOLE = {
    *("rewards", "data.eval", "policy.lora", "policy.video", "rollout.environment"),
    *("algorithm.blind", "algorithm.noisy", "algorithm.early_answers", "algorithm.empty_thought"),
    *("algorithm.blind", "algorithm.noisy", "algorithm.replay", "algorithm.tempered"),
}


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings of the schema."""
    for key, field in model.model_fields.items():
        name = f"{prefix}{key}"
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        inner = next(
            (kind for kind in kinds if issubclass(kind, BaseModel) and kind.__name__ != "PartConfig"), None
        )
        if inner is None or name in WHOLE:
            yield name
        else:
            yield from settings(inner, f"{name}.")


def test_every_setting_is_in_exactly_one_group() -> None:
    names = list(settings(RunConfig))
    assert len(names) > 80
    for name in names:
        assert sum(name in group for group in GROUPS) == 1, name
    assert set().union(*GROUPS) == set(names)


def test_the_table_of_the_documents_is_that_of_the_code() -> None:
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    table = page.split("### What may change")[1].split("\n## ")[0]
    for group in GROUPS[1:]:
        for name in group:
            section = name.rpartition(".")[0]
            assert f"`{name}`" in table or (section and f"`{section}.*`" in table), name
    for section in ("evaluation", "checkpoint", "tracking", "guard"):
        assert f"`{section}.*`" in table
    assert "`training.learning_rate`" in table


@pytest.fixture
def started(yaml: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run two iterations; the result resumes them with overrides, to four."""
    trainer_jobs.run(yaml, QUICK)

    def resumed(*overrides: str, source: Path = yaml) -> tuple[dict[str, Any], str]:
        return trainer_jobs.run(source, [*QUICK, "training.iterations=4", *overrides], resume=True)

    return resumed


def rates(rows: list[dict[str, Any]]) -> list[float]:
    return [row["optimizer/learning_rate"] for row in rows]


def test_a_new_learning_rate_takes_effect_and_the_history_says_so(
    started: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path, read_rows: Rows
) -> None:
    _, output = started("training.learning_rate=2.0e-4")
    assert rates(read_rows(tmp_path / "run")) == pytest.approx([1e-3, 1e-3, 2e-4, 2e-4])
    assert "from here on training.learning_rate: 0.001 → 0.0002" in output
    assert "warning" not in output
    text = (tmp_path / "run" / "config.yaml").read_text()
    first, second = (line for line in text.splitlines() if line.startswith("# "))
    assert first.startswith("# started 20")
    assert second.startswith("# resumed after iteration 2, 20")
    assert second.endswith("training.iterations: 2 → 4; training.learning_rate: 0.001 → 0.0002")
    assert load_config(tmp_path / "run" / "config.yaml").training.learning_rate == 2e-4


def test_a_new_schedule_takes_effect_at_the_step_that_the_run_has_reached(
    started: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path, read_rows: Rows
) -> None:
    started("training.schedule=cosine")
    # Four optimizer steps an iteration, sixteen in all; the metric is the mean over an iteration's steps.
    cosine = [0.5 * (1 + math.cos(math.pi * step / 16)) * 1e-3 for step in range(16)]
    expected = [1e-3, 1e-3, sum(cosine[8:12]) / 4, sum(cosine[12:]) / 4]
    assert rates(read_rows(tmp_path / "run")) == pytest.approx(expected)


def test_weight_decay_and_betas_take_effect(
    started: Callable[..., tuple[dict[str, Any], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    plain = OptimizerStep.__call__

    def note(self: OptimizerStep, loss: float) -> dict[str, float]:
        keys = ("betas", "weight_decay", "lr")
        seen.extend({key: group[key] for key in keys} for group in self.optimizer.param_groups)
        return plain(self, loss)

    monkeypatch.setattr(OptimizerStep, "__call__", note)
    started("training.weight_decay=0.1", "training.betas=[0.8, 0.99]")
    assert {tuple(group["betas"]) for group in seen} == {(0.8, 0.99)}
    assert {group["weight_decay"] for group in seen} == {0.1, 0.0}
    assert {group["lr"] for group in seen} == {1e-3}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("rollout.completions=3", "rollout.completions: 4 → 3"),
        ("rollout.temperature=1.5", "rollout.temperature: 1.0 → 1.5"),
        ("training.inner_epochs=1", "training.inner_epochs: 2 → 1"),
        ("algorithm.recipe=grpo", "algorithm.recipe: 'cpgd' → 'grpo'"),
        ("rewards=[{rule: format}]", "rewards: "),
        ("policy.system_prompt=Think.", "policy.system_prompt: None → 'Think.'"),
    ],
)
def test_another_experiment_is_a_warning_and_in_the_history(
    started: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path, override: str, line: str
) -> None:
    _, output = started(override)
    assert "warning: from here on this is another experiment than before: " in output
    assert line in output.split("another experiment")[1]
    assert line in (tmp_path / "run" / "config.yaml").read_text().splitlines()[1]


def test_adapters_of_a_checkpoint_without_newer_keys_are_the_same() -> None:
    rows = torch.zeros(1, dtype=torch.int64)
    now = resume.RunIdentity({"policy.lora": LoraConfig(rank=4).model_dump(mode="json")}, rows, "", {})
    earlier = {"policy.lora": {"rank": 4, "alpha": 32, "targets": "all-linear"}}
    assert not resume.compare({**now.state(), "settings": earlier}, now).lines
    dora = resume.RunIdentity(
        {"policy.lora": LoraConfig(rank=4, dora=True).model_dump(mode="json")}, rows, "", {}
    )
    with pytest.raises(UserError, match=r"policy\.lora: "):
        resume.compare({**now.state(), "settings": earlier}, dora)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=4", "no meaning with another value of these settings: seed: 3 → 4"),
        ("policy.lora={rank: 4}", "policy.lora: None → "),
        ("data.train.seed=9", "rows differ, the first is usable row 1; data.train.seed: 1 → 9"),
        ("data.train.limit=10", "10 rows, the checkpoint drew from 12; data.train.limit: 12 → 10"),
    ],
)
def test_another_run_is_refused_and_leaves_the_folder_alone(
    started: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path, override: str, message: str
) -> None:
    run = tmp_path / "run"
    before = {
        file: file.read_bytes() for file in run.rglob("*") if file.is_file() and "quarantine" not in file.name
    }
    with pytest.raises(UserError) as caught:
        started(override)
    assert message in str(caught.value)
    assert "start a new run with another output" in str(caught.value)
    assert {file: file.read_bytes() for file in before} == before


def test_a_refusal_is_of_the_checkpoint_not_of_a_start_that_failed(
    started: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path, read_rows: Rows
) -> None:
    # A run that is killed before its first new checkpoint has written config.yaml, and is compared again.
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.001", "learning_rate: 0.0002"))
    started("training.learning_rate=2.0e-4")
    assert rates(read_rows(tmp_path / "run"))[2:] == pytest.approx([2e-4, 2e-4])


def write_rows(file: Path, ids: list[int], question: str = "How much is {} + 1?") -> None:
    rows = [{"id": str(i), "question": question.format(i), "answer": str(i + 1)} for i in ids]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("ids", "question", "message"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "How much is {} + 1?", None),
        (
            [1, 0, 2, 3, 4, 5, 6, 7],
            "How much is {} + 1?",
            "2 of 8 rows differ.*they are in another order",
        ),
        ([0, 1, 2, 3, 4, 5, 6, 9], "How much is {} + 1?", "1 of 8 rows differ, the first is usable row 8"),
        ([0, 1, 2, 3], "How much is {} + 1?", "4 rows, the checkpoint drew from 8"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "Is it {}?", "8 of 8 rows differ, the first is usable row 1"),
    ],
)
def test_rows_are_compared_by_content_and_order(
    yaml: Path, tmp_path: Path, ids: list[int], question: str, message: str | None
) -> None:
    options = [*QUICK, f"data.train={{path: {tmp_path}/rows.jsonl, limit: null}}"]
    write_rows(tmp_path / "rows.jsonl", list(range(8)))
    trainer_jobs.run(yaml, options)
    write_rows(tmp_path / "rows.jsonl", ids, question)
    more = [*options, "training.iterations=3"]
    if message is None:  # the same rows, also under another name
        (tmp_path / "rows.jsonl").rename(tmp_path / "moved.jsonl")
        more.append(f"data.train.path={tmp_path}/moved.jsonl")
        trainer_jobs.run(yaml, more, resume=True)
        return
    with pytest.raises(UserError, match=message):
        trainer_jobs.run(yaml, more, resume=True)


def test_a_changed_file_of_rules_is_noted(
    started: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    with (tmp_path / "rules.py").open("a") as file:
        file.write("# another line\n")
    assert f"another experiment than before: {tmp_path}/rules.py has changed" in started()[1]


def test_a_model_that_was_replaced_under_its_name_is_refused(
    yaml: Path, tmp_path: Path, wordy_folder: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(wordy_folder, model)
    options = [*QUICK, f"policy.model={model}"]
    trainer_jobs.run(yaml, options)
    shutil.copytree(model, tmp_path / "moved")
    _, output = trainer_jobs.run(
        yaml, [*options, "training.iterations=3", f"policy.model={tmp_path / 'moved'}"], resume=True
    )
    assert "policy.model" in output
    weights = load_file(model / "model.safetensors")
    other = {name: value * 1.01 for name, value in weights.items()}
    save_file(other, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"the weights of policy\.model are not those"):
        trainer_jobs.run(yaml, [*options, "training.iterations=4"], resume=True)


def test_fine_tuning_does_not_go_on_as_reinforcement_learning(yaml: Path, tmp_path: Path) -> None:
    options = ["rollout.max_new_tokens=200", "data.eval=null"]
    trainer_jobs.run(yaml, options, imitate=True)
    with pytest.raises(UserError, match="command: 'sft' → 'train'"):
        trainer_jobs.run(yaml, options, resume=True)


def test_an_iteration_in_progress_is_sampled_again_by_new_settings(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(OptimizerStep, "__call__", OptimizerStep.__call__)
        trainer_jobs.at_call(OptimizerStep, "__call__", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunEnded, match="stopped after iteration 1"):
            trainer_jobs.run(yaml, ["data.eval=null"])
    _, output = trainer_jobs.run(yaml, ["data.eval=null", "rollout.completions=2"], resume=True)
    assert "the iteration in progress is sampled again" in output
    rows = read_rows(tmp_path / "run")
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    sampled = (tmp_path / "run" / "rollouts" / "iteration-000002.jsonl").read_text().splitlines()
    assert {len(json.loads(line)["completions"]) for line in sampled} == {2}


def test_a_checkpoint_of_an_earlier_version_goes_on_with_a_line(
    started: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    newest = tmp_path / "run" / "checkpoints" / "step-2"
    state = load_state(newest / "run.safetensors")
    del state["shared"]["identity"]
    save_state(newest / "run.safetensors", state)
    manifest = json.loads((newest / "manifest.json").read_text())
    content = (newest / "run.safetensors").read_bytes()
    manifest["files"]["run.safetensors"] = [len(content), hashlib.sha256(content).hexdigest()]
    (newest / "manifest.json").write_text(json.dumps(manifest))
    _, output = started()
    assert "of an earlier version: settings and rows were not compared" in output


def test_row_digests_see_every_part_that_a_prompt_or_a_reward_reads() -> None:
    image = ImageRef("a.png", lambda: None)  # type: ignore[arg-type, return-value]
    plain = Example("1", "Q?", "4", (image,), "S", ("x", "y"))
    others = [
        Example("2", "Q?", "4", (image,), "S", ("x", "y")),
        Example("1", "Q!", "4", (image,), "S", ("x", "y")),
        Example("1", "Q?", "5", (image,), "S", ("x", "y")),
        Example("1", "Q?", "4", (ImageRef("b.png", image.load),), "S", ("x", "y")),
        Example("1", "Q?", "4", (image,), None, ("x", "y")),
        Example("1", "Q?", "4", (image,), "S", ("xy",)),
    ]
    digests = {resume._row_digest(one) for one in [plain, *others]}
    assert len(digests) == 7
    assert torch.tensor(sorted(digests)).min() >= 0
