"""Messages about what a user's environment returns."""

from __future__ import annotations

from typing import Any

import pytest

from data import Example, VideoRef
from data.videos.pictures import PictureSequence
from mm_cpgd.environments import Message, Observation, PlainEnvironment
from mm_cpgd.environments.checks import CheckedEnvironment
from mm_cpgd.errors import UserError
from rewards import Status, Verdict

VIDEO = VideoRef("clip", PictureSequence("clip", (), 1.0))
REPLY = (Message("user", ("more?",)),)


class Returning:
    """Environment that returns what it is given."""

    def __init__(self, prompt: Any = REPLY, observation: Any = None) -> None:
        self.prompt = prompt
        self.observation = observation

    def reset(self, example: Example) -> Any:
        return self.prompt

    def step(self, completion: str) -> Any:
        return self.observation


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "returned NoneType; a return statement may be missing; allowed: a sequence"),
        ("text", "returned str"),
        ((), "no message for the policy"),
        ([{"role": "user", "content": "x"}], "returned a dict; allowed: Message"),
        ([Message("bot", ("x",))], "the role 'bot'; allowed: system, user, assistant, tool"),
        ([Message("user", "x")], "the content of a message is 'x'"),
        ([Message("user", (1,))], "holds int"),
        ([*REPLY, Message("assistant", ("x",))], "must be of the user"),
    ],
)
def test_a_prompt_that_is_none_is_refused(prompt: Any, message: str, example: Example) -> None:
    with pytest.raises(UserError, match=message) as raised:
        CheckedEnvironment("mine", Returning(prompt)).reset(example)
    assert "environment 'mine': reset" in str(raised.value)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (None, "returned NoneType; a return statement may be missing"),
        (True, "returned bool; allowed: Observation"),
        (Observation(), "no messages and is not done"),
        (Observation(REPLY, done=True), "is done and has messages"),
        (Observation((Message("assistant", ("x",)),)), "which only the policy has"),
        (Observation((Message("user", (VIDEO,)),)), "has a video, which only the prompt may have"),
        (Observation(done=True, scores={"a": float("nan")}), "score 'a' is nan"),
        (Observation(done=True, scores={"a": "1"}), "score 'a' is '1'"),
        (Observation(done=True, scores={"a": None}), "score 'a' is None"),
        (Observation(done=True, scores={"a": Verdict(float("inf"), Status.CORRECT)}), "score 'a' is inf"),
        (Observation(done=True, scores=[1.0]), r"scores is \[1.0\]; allowed: a mapping by name"),
        (Observation(done=True, counts={"n": 1.5}), "count 'n' is 1.5"),
        (Observation(done=True, counts={"n": True}), "count 'n' is True"),
    ],
)
def test_an_observation_that_is_none_is_refused(observation: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        CheckedEnvironment("mine", Returning(observation=observation)).step("x")
    assert "environment 'mine': step" in str(raised.value)


def test_a_right_environment_passes_unchanged(example: Example) -> None:
    plain = PlainEnvironment()
    checked = CheckedEnvironment("plain", plain)
    assert checked.reset(example) == plain.reset(example)
    assert checked.step("x") == plain.step("x")
    scored = Observation(list(REPLY), scores={"a": 1, "b": Verdict(None, Status.ERROR)}, counts={"n": 2})
    assert CheckedEnvironment("mine", Returning(observation=scored)).step("x").messages == REPLY


def test_exceptions_of_the_environment_pass_through(example: Example) -> None:
    class Broken(PlainEnvironment):
        def step(self, completion: str) -> Observation:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        CheckedEnvironment("broken", Broken()).step("x")


def test_an_object_without_the_methods_is_refused() -> None:
    with pytest.raises(UserError, match="made int, which has no method reset"):
        CheckedEnvironment("mine", 3)
