"""Conversations that rows write: their tokens, the rows that cannot be played, and a run that learns them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data import Example
from data.generated import cold_start
from mm_cpgd.config.rollout import EnvironmentConfig, RolloutConfig
from mm_cpgd.environments import get_environment
from mm_cpgd.policy import Policy
from mm_cpgd.rollout import Completion, LocalEngine
from mm_cpgd.rollout.conversations.sampler import ConversationSampler
from mm_cpgd.rollout.conversations.state import Limits
from mm_cpgd.training.rollouts.written import WrittenConversations, turn_tokens, turns_check
from tests.fakes.training_runs import run

TOOLS = {"tools": ["zoom"], "reply_role": "user", "image_pixels": 12_544}


def careful() -> Example:
    """A row with the two turns of a careful conversation."""
    return next(row for row in cold_start(("detail",), 9, 3, describe=0, careful=1) if "turns" in row.meta)


def player(policy: Policy, limits: Limits | None = None, **options: Any) -> WrittenConversations:
    factory = get_environment("tools", TOOLS | options)
    policy.encoder.environment = factory
    sampler = ConversationSampler(
        policy, LocalEngine(policy), factory, limits or Limits(4, 4096, 4), seconds=30, threads=2
    )
    return WrittenConversations(sampler, 0)


@pytest.fixture
def policy(tiny_policy: Policy) -> Any:
    yield tiny_policy
    tiny_policy.encoder.environment = None


def play(policy: Policy, example: Example, **options: Any) -> Completion | str:
    played = player(policy, **options)
    return played.play([policy.encoder.encode(example)], [example])[0]


def test_the_written_turns_are_learned_and_the_reply_between_them_is_not(policy: Policy) -> None:
    example = careful()
    call, answer = example.meta["turns"]
    found = play(policy, example)
    assert isinstance(found, Completion)
    assert found.talk is not None
    own = torch.cat([turn_tokens(policy, call), turn_tokens(policy, answer)])
    torch.testing.assert_close(found.tokens[found.own], own)
    observed = found.tokens[~found.own]
    image = policy.model.config.image_token_id
    # The crop has 112 by 112 pixels, each token 28 by 28.
    assert int((observed == image).sum()) == 16
    assert "<tool_response>" in policy.tokenizer.decode(observed)
    assert found.talk.suffix is not None
    assert found.talk.suffix.positions.shape[1] == len(found.tokens)


@pytest.mark.parametrize(
    ("turns", "options", "reason"),
    [
        (["No call.", "circle"], {}, "the environment ends the conversation after turn 1 of 2"),
        (None, {"limits": Limits(4, 40, 4)}, "longer than rollout.environment.max_tokens allows"),
        (None, {"limits": Limits(4, 4096, 0)}, "longer than rollout.environment.max_images allows"),
    ],
)
def test_a_conversation_that_cannot_be_held_says_why(
    policy: Policy, turns: list[str] | None, options: dict[str, Any], reason: str
) -> None:
    example = careful()
    if turns:
        example = replace(example, meta={**example.meta, "turns": turns})
    found = play(policy, example, **options)
    assert isinstance(found, str)
    assert found.endswith(reason)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ("look", "the column turns is not a list of the texts of the policy's turns"),
        ([], "the column turns is not a list"),
        ([1, 2], "the column turns is not a list"),
        (["a", "b", "c"], "3 turns, rollout.environment.max_turns is 2"),
        (["a " * 100, "b"], "rollout.max_new_tokens is 64"),
        (["a", "b"], None),
        (None, "no solution"),
    ],
)
def test_rows_are_checked_before_the_run(policy: Policy, turns: object, reason: str | None) -> None:
    rollout = RolloutConfig(max_new_tokens=64, environment=EnvironmentConfig(name="tools", max_turns=2))
    check = turns_check(policy, rollout, lambda example: "no solution")
    found = check(Example("1", "?", "a", meta={"turns": turns}))
    assert found is None if reason is None else found is not None and reason in found
    without = turns_check(policy, RolloutConfig(), lambda example: "no solution")
    assert without(Example("1", "?", "a", meta={"turns": turns})) == "no solution"


def test_fine_tuning_learns_conversations_beside_solutions(yaml: Path, read_rows: Any) -> None:
    overrides = [
        "data.train={path: 'cold-start:detail', limit: 12, seed: 1}",
        "data.eval=null",
        "rollout.max_new_tokens=160",
        "rollout.environment={name: tools, max_turns: 2, options: "
        "{tools: [zoom], reply_role: user, image_pixels: 12544}}",
        "sft={steps: 12, batch: 12}",
    ]
    run(yaml, overrides, imitate=True)
    losses = [row["sft/loss"] for row in read_rows(yaml.parent / "run")]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
