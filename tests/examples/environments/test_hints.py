"""The example without tools."""

from __future__ import annotations

from data import Example
from mm_cpgd.environments import get_environment
from tests.paths import ROOT

NAME = f"{ROOT}/examples/environments/hints.py:Hints"


def test_a_wrong_answer_gets_one_hint_and_a_second_try_counts_half() -> None:
    made = get_environment(NAME)(0)
    made.reset(Example("1", "How many?", "4"))
    first = made.step("<answer>3</answer>")
    assert [message.text for message in first.messages] == ["It is between 3 and 5."]
    assert first.counts == {"hints": 1}
    second = made.step("<answer>4</answer>")
    assert (second.done, second.scores) == (True, {"solved": 0.5})


def test_a_right_answer_ends_at_once() -> None:
    made = get_environment(NAME, {"worth": 0.1})(0)
    made.reset(Example("1", "Which?", "red"))
    assert made.step("<answer>red</answer>").scores == {"solved": 1.0}
    made.reset(Example("1", "Which?", "red"))
    assert made.step("<answer>blue</answer>").messages[0].text == "That is not it; look again."
    assert made.step("<answer>blue</answer>").scores == {"solved": 0.0}
