"""Scores of conversations: rules on the last turn, parts of the environment, and failures."""

from __future__ import annotations

import pytest
import torch

from data import Example
from mm_cpgd.environments import Message, Observation
from mm_cpgd.errors import UserError
from mm_cpgd.rollout import Completion
from mm_cpgd.rollout.engine import Talk, Turn
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from rewards import RewardSum, Status, Verdict, turns_of
from rewards.registry import rule

ROW = Example("1", "?", "0")


@rule("scorer_test_number")
def number(completion: str, example: Example) -> float:
    """The last turn is its own score."""
    return float(completion)


@rule("scorer_test_turns")
def turns(completion: str, example: Example) -> float:
    """The number of turns, and of characters that were read between them."""
    return len(turns_of(completion)) + 0.01 * sum(len(turn.observed) for turn in turns_of(completion))


def conversation(*turns: Turn, failure: Verdict | None = None) -> Completion:
    tokens = torch.arange(sum(turn.tokens for turn in turns))
    talk = Talk(turns, torch.ones(len(tokens), dtype=torch.bool), failure=failure)
    return Completion(tokens, torch.zeros(len(tokens)), turns[-1].text, True, talk=talk)


def turn(text: str, **scores: float | Verdict) -> Turn:
    return Turn(text, 2, Observation((Message.of("tool", "seen"),), scores=scores))


def scorer(**weights: float) -> CompletionScorer:
    rules = RewardSum([("scorer_test_number", 1.0, {}), ("scorer_test_turns", 0.0, {})])
    return CompletionScorer(rules, weights)


def test_rules_score_the_last_turn_and_can_see_all() -> None:
    (found,) = scorer().score([conversation(turn("look"), turn("0.5"))], [ROW])
    assert found.total == 0.5
    assert found.components["scorer_test_turns"].score == pytest.approx(2.08)


def test_parts_of_the_environment_are_added_over_the_turns_and_weighted() -> None:
    talk = conversation(turn("a", near=0.2, calls=1.0), turn("b", near=0.3), turn("0.5", calls=1.0))
    (found,) = scorer(near=2.0, calls=-0.1, other=5.0).score([talk], [ROW])
    assert found.total == pytest.approx(0.5 + 2 * 0.5 - 0.1 * 2)
    assert {name: found.components[name].score for name in ("near", "calls", "other")} == {
        "near": 0.5,
        "calls": 2.0,
        "other": 0.0,
    }


def test_a_part_that_could_not_be_scored_excludes_the_completion() -> None:
    unknown = Verdict(None, Status.UNPARSABLE_GOLD)
    (found,) = scorer(near=1.0).score([conversation(turn("a", near=unknown), turn("1", near=1.0))], [ROW])
    assert found.total is None
    (logged,) = scorer(near=0.0).score([conversation(turn("a", near=unknown), turn("1"))], [ROW])
    assert logged.total == 1.0


def test_a_failure_is_the_verdict_of_all_components() -> None:
    failure = Verdict(None, Status.TIMEOUT, None, "no reply")
    (found,) = scorer(near=1.0).score([conversation(turn("1"), failure=failure)], [ROW])
    assert found.total is None
    assert found.components == dict.fromkeys(("scorer_test_number", "scorer_test_turns", "near"), failure)


def test_a_completion_without_a_conversation_is_scored_as_ever() -> None:
    plain = Completion(torch.arange(3), torch.zeros(3), "0.25", True)
    (found,) = scorer().score([plain], [ROW])
    assert found.total == 0.25
    assert found.components["scorer_test_turns"].score == 1


@pytest.mark.parametrize("name", ["scorer_test_number", "mean"])
def test_names_that_are_taken_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"scores has {name}"):
        scorer(**{name: 1.0})
