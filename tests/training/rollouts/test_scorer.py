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


@pytest.mark.parametrize(("last", "counted"), [("1", 0.5), ("0.9", 0.0), ("1.5", 0.5)])
def test_a_part_counts_if_its_gate_is_open(last: str, counted: float) -> None:
    rules = RewardSum([("scorer_test_number", 1.0, {})])
    gated = CompletionScorer(rules, {"near": 2.0, "calls": -0.1}, {"near": "scorer_test_number"})
    talk = conversation(turn("a", near=0.2, calls=1.0), turn("b", near=0.3), turn(last))
    (found,) = gated.score([talk], [ROW])
    assert found.components["near"].score == pytest.approx(counted)
    assert found.total == pytest.approx(float(last) + 2 * counted - 0.1)
    assert ("does not count" in found.components["near"].reason) == (not counted)


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"nearr": "scorer_test_number"}, "'nearr', which has no weight"),
        ({"near": "scorer_test_numbr"}, "gates.near is 'scorer_test_numbr', and no reward has that name"),
    ],
)
def test_a_gate_needs_a_part_and_a_rule(gates: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        CompletionScorer(RewardSum([("scorer_test_number", 1.0, {})]), {"near": 1.0}, gates)


def test_a_gate_without_a_score_leaves_the_part_without_one() -> None:
    @rule("scorer_test_unknown")
    def unknown(completion: str, example: Example) -> Verdict:
        return Verdict(None, Status.UNPARSABLE_GOLD, None, "no gold")

    rules = RewardSum([("scorer_test_number", 1.0, {}), ("scorer_test_unknown", 0.0, {})])
    gated = CompletionScorer(rules, {"near": 2.0}, {"near": "scorer_test_unknown"})
    (found,) = gated.score([conversation(turn("1", near=0.2))], [ROW])
    assert found.total is None
    assert "scorer_test_unknown has no score: no gold" in found.components["near"].reason


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
