"""Runs whose completions are conversations of several turns with pictures in between."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.tracking import read_rollouts
from mm_cpgd.training.optimizer import OptimizerStep
from tests.fakes.training_runs import in_two_processes, run
from tests.paths import ROOT

Rows = Callable[[Path], list[dict[str, Any]]]
NAME = f"{ROOT}/tests/fakes/environments.py:Looking"
OVERRIDES = [f"rollout.environment.name={NAME}", "rollout.environment.scores={seen: 1.0}", "data.eval=null"]


def test_a_run_learns_from_conversations_and_counts_them(yaml: Path, read_rows: Rows) -> None:
    run(yaml, OVERRIDES)
    rows = read_rows(yaml.parent / "run")
    last = rows[-1]
    assert 1 < last["conversation/turns"] <= 3
    assert last["conversation/images"] == pytest.approx(last["conversation/turns"] - 1)
    assert last["conversation/count_looks"] == last["conversation/images"]
    assert last["conversation/failed"] == last["conversation/cut_turns"] == 0
    assert last["completion/length_mean"] <= 3 * 8
    assert last["optimizer/skipped"] == 0


def test_two_processes_have_the_conversations_and_the_weights_of_one(yaml: Path, read_rows: Rows) -> None:
    run(yaml, [*OVERRIDES, f"output={yaml.parent}/one"])
    assert in_two_processes(yaml, [*OVERRIDES, f"output={yaml.parent}/two"]) == [0, 0]
    one, two = (read_rows(yaml.parent / name) for name in ("one", "two"))
    assert len(one) == len(two) == 3
    for mine, other in zip(one, two, strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-6, nan_ok=True)
    wanted, found = (load_file(yaml.parent / name / "final/model.safetensors") for name in ("one", "two"))
    for name, weight in wanted.items():
        # AdamW moves a weight by the learning rate 1e-3 also where its gradient is 0 up to rounding.
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


def test_a_run_that_was_stopped_in_an_update_ends_like_one_that_was_not(
    yaml: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(yaml, [*OVERRIDES, f"output={yaml.parent}/whole"])
    whole = read_rows(yaml.parent / "whole")
    calls = 0
    step = OptimizerStep.__call__

    def stopping(self: OptimizerStep, loss: float) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 6:  # in the second iteration, which has four steps
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, loss)

    monkeypatch.setattr(OptimizerStep, "__call__", stopping)
    with pytest.raises(RunEnded, match="--resume"):
        run(yaml, [*OVERRIDES, f"output={yaml.parent}/stopped"])
    run(yaml, [*OVERRIDES, f"output={yaml.parent}/stopped"], resume=True)
    for mine, other in zip(read_rows(yaml.parent / "stopped"), whole, strict=True):
        assert mine == pytest.approx(other, rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(("option", "status"), [("fail", "error"), ("hang", "timeout")])
def test_an_environment_that_fails_costs_its_completion_and_not_the_run(
    option: str, status: str, yaml: Path, read_rows: Rows
) -> None:
    more = [f"rollout.environment.options={{{option}: 2}}", "rollout.environment.tool_seconds=2"]
    run(yaml, [*OVERRIDES, *more, "training.iterations=1"])
    (row,) = [row for row in read_rows(yaml.parent / "run") if row["iteration"] == 1]
    assert 0 < row["conversation/failed"] == row["reward/unscored"] == row["reward/failed"] < 1
    rollouts = read_rollouts(yaml.parent / "run/rollouts/iteration-000001.jsonl")
    failed = [one for prompt in rollouts for one in prompt.completions if one.total is None]
    assert len(failed) == round(16 * row["conversation/failed"])
    for one in failed:
        assert one.advantage is None
        assert {component.status for component in one.components.values()} == {status}
        assert "the environment failed" in one.components["seen"].reason


@pytest.mark.parametrize(
    ("limit", "value", "most"), [("max_turns", 2, 2), ("max_images", 1, 2), ("max_tokens", 30, 3)]
)
def test_conversations_that_are_cut_are_counted_and_learned_from(
    limit: str, value: int, most: int, yaml: Path, read_rows: Rows
) -> None:
    run(yaml, [*OVERRIDES, f"rollout.environment.{limit}={value}", "training.iterations=1"])
    (row,) = [row for row in read_rows(yaml.parent / "run") if row["iteration"] == 1]
    cut = row[f"conversation/cut_{limit.removeprefix('max_')}"]
    assert 0 < cut <= row["completion/truncated"] <= 1
    assert row["reward/unscored"] == 0
    assert row["conversation/turns"] <= most


def test_sampling_ahead_learns_from_conversations_too(yaml: Path, read_rows: Rows) -> None:
    run(yaml, [*OVERRIDES, "rollout.ahead=1"])
    rows = read_rows(yaml.parent / "run")
    assert [row["rollout/staleness"] for row in rows if row["iteration"]] == [0, 1, 1]
    assert all(row["conversation/turns"] > 1 for row in rows if row["iteration"])


def test_the_plain_environment_gives_the_run_without_one(yaml: Path, read_rows: Rows) -> None:
    run(yaml, ["data.eval=null", f"output={yaml.parent}/without"])
    run(yaml, ["data.eval=null", "rollout.environment.name=plain", f"output={yaml.parent}/with"])
    without, found = (read_rows(yaml.parent / name) for name in ("without", "with"))
    for mine, other in zip(found, without, strict=True):
        assert {key: mine[key] for key in other} == pytest.approx(other, rel=0, abs=0, nan_ok=True)


def test_returns_by_turn_learn_something_else_than_one_advantage_and_survive_a_resume(
    yaml: Path, read_rows: Rows
) -> None:
    run(yaml, [*OVERRIDES, f"output={yaml.parent}/outcome"])
    by_turn = [*OVERRIDES, "rollout.environment.returns=by_turn", "rollout.environment.discount=0.9"]
    run(yaml, [*by_turn, f"output={yaml.parent}/whole"])
    run(yaml, [*by_turn, f"output={yaml.parent}/parts", "training.iterations=1"])
    run(yaml, [*by_turn, f"output={yaml.parent}/parts"], resume=True)
    outcome, whole, parts = (read_rows(yaml.parent / name) for name in ("outcome", "whole", "parts"))
    assert whole[-1]["policy/drift"] != outcome[-1]["policy/drift"]
    for mine, other in zip(parts, whole, strict=True):
        assert mine == pytest.approx(other, rel=1e-6, abs=1e-9, nan_ok=True)


def test_held_out_rows_are_evaluated_in_conversations(yaml: Path, read_rows: Rows) -> None:
    with_rows = [one for one in OVERRIDES if one != "data.eval=null"]
    with_rows.append("training.iterations=1")
    run(yaml, [*with_rows, f"output={yaml.parent}/one"])
    before, *_ = read_rows(yaml.parent / "one")
    assert 1 < before["eval/turns"] <= 3
    assert before["eval/seen"] > 0
    assert in_two_processes(yaml, [*with_rows, f"output={yaml.parent}/two"]) == [0, 0]
    assert read_rows(yaml.parent / "two")[0] == pytest.approx(before, rel=1e-6)


def test_log_and_report_show_the_conversation_turn_by_turn_with_its_pictures(yaml: Path) -> None:
    run(yaml, [*OVERRIDES, "training.iterations=1"], report=True)
    folder = yaml.parent / "run"
    first, *others = read_rollouts(folder / "rollouts/iteration-000001.jsonl")
    turns = [turn for completion in first.completions for turn in completion.turns]
    assert all(completion.turns[-1].text == completion.text for completion in first.completions)
    shown = [turn for turn in turns if turn.observed]
    assert shown
    for turn in shown:
        assert turn.observed.startswith("Look ")
        assert set(turn.scores) == {"seen"}
        (name,) = turn.images
        assert (folder / "rollouts/images" / name).is_file()
    assert all(not turn.images for prompt in others for one in prompt.completions for turn in one.turns)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "after turn 1" in page
    pictures = [base64.b64encode((folder / "rollouts/images" / t.images[0]).read_bytes()) for t in shown]
    assert any(picture.decode() in page for picture in pictures)


def test_a_score_with_the_name_of_a_reward_is_refused(yaml: Path) -> None:
    with pytest.raises(UserError, match=r"scores has vowels, which is the name of a reward"):
        run(yaml, [*OVERRIDES, "rollout.environment.scores={vowels: 1}"])
