"""Written conversations as experience: own tokens are the turns, replies are read, and runs learn them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data import Example
from data.generated import cold_start
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.training.rollouts.build import load_environment
from mm_cpgd.training.rollouts.demonstrations import Demonstrations, turns_of
from mm_cpgd.training.sft import text_tokens
from tests.fakes.training_runs import in_two_processes, run

ENVIRONMENT = {
    "name": "tools",
    "options": {"tools": ["zoom"], "image_pixels": 12_544, "describe": "nobody"},
    "max_turns": 3,
}
OVERRIDES = [
    "data.train={path: 'cold-start:detail?describe=0.2&careful=0.5', limit: 16, seed: 0}",
    "data.eval=null",
    "policy.max_pixels=12544",
    "rollout.max_new_tokens=128",
    f"rollout.environment={ENVIRONMENT}",
    "sft={steps: 2, batch: 4}",
]


@pytest.fixture
def rows() -> list[Example]:
    found = cold_start(("detail",), 12, seed=0, describe=0.0, careful=0.5)
    return sorted(found, key=lambda row: "turns" in row.meta)


@pytest.fixture
def config(yaml: Path) -> RunConfig:
    return load_config(yaml, OVERRIDES)


def play(policy: Policy, config: RunConfig, rows: list[Example]) -> tuple[list[list[Any]], list[Any]]:
    policy.encoder.environment = load_environment(config)
    try:
        texts = [turns_of(row) or [row.solution or ""] for row in rows]
        turns = [[text_tokens(policy, text) for text in row] for row in texts]
        prompts = [policy.encoder.encode(row) for row in rows]
        return turns, Demonstrations(config, policy).play(prompts, rows, turns)
    finally:
        policy.encoder.environment = None


def test_own_tokens_are_the_turns_and_the_rest_is_observed(
    policy: Policy, config: RunConfig, rows: list[Example]
) -> None:
    turns, played = play(policy, config, rows)
    assert {len(row) for row in turns} == {1, 2}
    for row, one in zip(turns, played, strict=True):
        assert torch.equal(one.tokens[one.own], torch.cat(row))
        if len(row) == 1:
            assert one.own.all()
            assert one.talk.suffix is None
            continue
        observed = policy.tokenizer.decode(one.tokens[~one.own].tolist())
        assert "<|im_start|>tool\nImage 2: <|vision_start|>" in observed
        # One image of 112 × 112 pixels: 64 patches of 14 pixels.
        assert one.talk.suffix.vision["image_grid_thw"].tolist() == [[1, 8, 8]]


def test_rows_without_turns_have_none() -> None:
    row = Example("1", "Q", "A")
    assert turns_of(row) is None
    assert turns_of(replace(row, meta={"turns": "one text"})) is None
    assert turns_of(replace(row, meta={"turns": []})) is None
    assert turns_of(replace(row, meta={"turns": ["a", "b"]})) == ["a", "b"]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (["<answer>bars</answer>", "more"], "2 turns ends before its last turn"),
        (["<tool_call>{</tool_call>"], "1 turns does not end with its last turn"),
        (["<tool_call>{</tool_call>"] * 3, "exceeds rollout.environment.max_turns"),
    ],
)
def test_turns_that_do_not_fit_the_environment_are_named(
    policy: Policy, config: RunConfig, rows: list[Example], turns: list[str], message: str
) -> None:
    row = replace(rows[0], meta={"turns": turns})
    with pytest.raises(UserError, match=message) as raised:
        play(policy, config, [row])
    assert repr(row.id) in str(raised.value)


def test_a_run_learns_written_conversations(yaml: Path, read_rows: Any) -> None:
    run(yaml, [*OVERRIDES, "sft.steps=6", "training.learning_rate=3e-3"], imitate=True)
    losses = [row["sft/loss"] for row in read_rows(yaml.parent / "run") if "sft/loss" in row]
    assert len(losses) == 6
    assert losses[-1] < losses[0]


def test_two_processes_learn_what_one_does(yaml: Path, read_rows: Any) -> None:
    run(yaml, [*OVERRIDES, f"output={yaml.parent}/one"], imitate=True)
    done = in_two_processes(yaml, [*OVERRIDES, f"output={yaml.parent}/two"], imitate=True)
    assert done == [0, 0]
    one, two = (read_rows(yaml.parent / name) for name in ("one", "two"))
    assert [row["sft/loss"] for row in one if "sft/loss" in row] == pytest.approx(
        [row["sft/loss"] for row in two if "sft/loss" in row], rel=1e-4
    )
