"""Selection of completions."""

import itertools

import pytest
import torch

from mm_cpgd.algorithms.completions import drop_truncated, max_variance, most_spread, right_only
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from mm_cpgd.errors import UserError
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


@pytest.mark.parametrize(
    ("count", "places", "variance"),
    [(2, [0, 4], 1.69), (3, [0, 1, 4], 1.182222), (4, [0, 1, 3, 4], 0.911875)],
)
def test_the_subset_of_largest_variance_by_hand(count, places, variance):
    values = torch.tensor([-1.2, -0.4, -0.1, 0.3, 1.4], dtype=torch.float64)
    found = most_spread(values, count)
    assert sorted(found.tolist()) == places
    assert values[found].var(correction=0).item() == pytest.approx(variance, abs=1e-6)
    assert sorted(most_spread(-values, count).tolist()) == places


@pytest.mark.parametrize("seed", range(6))
def test_no_subset_has_a_larger_variance(seed):
    values = torch.randn(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = float("inf")
    for count in range(2, 8):
        found = values[most_spread(values, count)].var(correction=0).item()
        subsets = itertools.combinations(range(7), count)
        best = max(values[list(one)].var(correction=0).item() for one in subsets)
        assert found == pytest.approx(best)
        assert found <= before
        before = found


def test_of_equal_values_the_first_are_kept():
    rewards = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0, 1, 0]])
    advantages = build(recipe="grpo").advantages(rewards)
    assert advantages[0, [0, 2]].tolist() == pytest.approx([1.620182, -0.540061], abs=1e-5)
    keep = max_variance(advantages, rewards, share=0.5)
    assert keep[0].nonzero().squeeze(1).tolist() == [0, 1, 2, 3]
    assert keep[1].nonzero().squeeze(1).tolist() == [0, 1, 2, 3]


def test_groups_without_a_signal_and_unscored_completions_are_left_out():
    rewards = torch.tensor([[1.0, 1, 1, 1], [NAN, 1, 0, 0], [NAN, NAN, NAN, 1]])
    advantages = build(recipe="grpo").advantages(rewards)
    keep = max_variance(advantages, rewards, share=0.5)
    assert keep.tolist() == [[False] * 4, [False, True, True, False], [False] * 4]
    assert torch.equal(max_variance(advantages, rewards, share=1.0), ~rewards.isnan())


def test_over_the_batch_the_clearest_completions_of_all_prompts_are_kept():
    advantages = torch.tensor([[0.1, -0.1, 0.2, -0.2], [3.0, -2.0, 0.0, 1.0]])
    keep = max_variance(advantages, advantages, share=0.25, scope="batch")
    assert keep.nonzero().tolist() == [[1, 0], [1, 1]]


def test_d3s_keeps_more_as_the_run_goes_on():
    objective = build(recipe="d3s", iterations=11)
    rewards = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]])
    advantages = objective.advantages(rewards)
    counts = []
    for progress in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0):
        outcomes = Outcomes(**{**vars(Outcomes.of_rewards(rewards)), "progress": progress})
        counts.append(int(objective.keep_completions(advantages, outcomes).sum()))
    # Shares of 0.25, 0.4, 0.55, 0.7, 0.85 and 1, rounded up.
    assert counts == [2, 4, 5, 6, 7, 8, 8]


def test_a_group_of_one_leaves_nothing_to_choose_from():
    parts = {"advantage": {"name": "reinforce_pp"}, "completions": [{"name": "max_variance"}]}
    config = AlgorithmConfig(**{**load_recipe("cpgd"), **parts, "selection": []})
    with pytest.raises(UserError, match=r"max_variance compares.*rollout\.completions >= 2"):
        build_objective(config, completions=1, max_new_tokens=8)
