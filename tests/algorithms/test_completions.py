"""Selection of completions."""

import torch

from mm_cpgd.algorithms.completions import drop_truncated, right_only
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from tests.fakes.objectives import build

NAN = float("nan")


def test_what_a_limit_cut_off_is_dropped():
    assert drop_truncated(torch.tensor([[1.0, 0.0], [NAN, 1.0]])).tolist() == [[True, False], [False, True]]


def test_right_answers_alone_are_kept():
    accuracy = torch.tensor([[1.0, 0.5, NAN, 0.0]])
    assert right_only(accuracy).tolist() == [[True, False, False, False]]
    assert right_only(accuracy, least=0.5).tolist() == [[True, True, False, False]]


def test_raft_is_the_likelihood_of_right_answers():
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, NAN, 0.0]])
    objective = build(recipe="raft")
    advantages = objective.advantages(rewards)
    assert advantages.tolist() == [[1, 1, 1], [1, 0, 1]]
    keep = objective.keep_completions(advantages, Outcomes.of_rewards(rewards))
    assert keep.tolist() == [[True, False, True], [False, False, False]]
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    loss, _ = objective.loss(logprobs, logprobs.detach(), torch.ones(2), mask, torch.tensor([2, 1]))
    (gradient,) = torch.autograd.grad(loss, logprobs)
    torch.testing.assert_close(gradient, -mask.float() / 3)


def test_several_parts_keep_what_each_keeps():
    parts = [{"name": "drop_truncated"}, {"name": "right_only"}]
    rewards = torch.tensor([[1.0, 1.0, 0.0]])
    outcomes = Outcomes(**{**vars(Outcomes.of_rewards(rewards)), "finished": torch.tensor([[1.0, 0.0, 1.0]])})
    config = AlgorithmConfig(**{**load_recipe("cpgd"), "completions": parts})
    objective = build_objective(config, completions=3, max_new_tokens=8)
    assert objective.keep_completions(rewards, outcomes).tolist() == [[True, False, False]]
    assert build().keep_completions(rewards, outcomes).all()
