"""Outcomes as inputs of advantages."""

import torch

from mm_cpgd.algorithms.inputs.outcomes import OUTCOMES, Outcomes
from mm_cpgd.algorithms.parts import INPUTS

NAN = float("nan")


def outcomes() -> Outcomes:
    rewards = torch.tensor([[1.0, NAN], [0.0, 1.0], [2.0, 0.0]])
    found = Outcomes.of_rewards(rewards).__dict__
    return Outcomes(**{**found, "answers": [["a", None], ["b", "c"], ["d", "d"]], "iteration": 4})


def test_outcomes_of_some_prompts_are_theirs_alone():
    some = outcomes().of(torch.tensor([True, False, True]))
    assert some.rows.tolist() == [0, 2]
    assert some.answers == [["a", None], ["d", "d"]]
    assert some.rewards[1].tolist() == [2.0, 0.0]
    assert some.components.shape == (2, 2, 1)
    assert (some.iteration, some.rules) == (4, ("reward",))


def test_an_advantage_may_ask_for_everything_that_is_provided():
    assert set(outcomes().available()) == OUTCOMES == INPUTS["advantage"] - {"state", "memory"}
