"""COPO: the worked numbers, its limits, and what counts as the same answer."""

import math

import pytest
import torch

from mm_cpgd.algorithms.advantages import grpo
from mm_cpgd.algorithms.methods.consistency import answer_entropy, copo

NAN = float("nan")
REWARDS = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]], dtype=torch.float64)
ANSWERS = [["7"] * 4, ["3"] * 4, ["7", "3", "3", "7"]]
ENDED = torch.ones(3, 4)
GLOBAL = torch.tensor([[1.0], [-1], [0]]).double().expand(3, 4)


def test_three_groups_by_hand():
    found = copo(REWARDS, ANSWERS, ENDED)
    half = 0.246682
    expected = [[0.952574] * 4, [-0.952574] * 4, [half, -half, -half, half]]
    torch.testing.assert_close(found, torch.tensor(expected).double(), atol=5e-6, rtol=0)
    lower = copo(REWARDS, ANSWERS, ENDED, rho=0.5)
    assert lower[0, 0].item() == pytest.approx(1 - 0.182426, abs=5e-6)
    assert lower[2, 0].item() == pytest.approx(0.640939 * 0.866025, abs=5e-6)


def test_entropies_by_hand():
    groups = [["a", "b", "c", "d"], ["a", "a", "a", "b"], ["a"] * 4, []]
    assert answer_entropy(groups).tolist() == pytest.approx([1.386294, 0.562335, 0, 0], abs=1e-6)


def test_the_ends_of_the_gate_are_grpo_and_the_batch_alone():
    torch.testing.assert_close(copo(REWARDS, ANSWERS, ENDED, rho=-1e3), grpo(REWARDS), atol=1e-5, rtol=0)
    torch.testing.assert_close(copo(REWARDS, ANSWERS, ENDED, rho=1e3), GLOBAL, atol=1e-5, rtol=0)
    blended = copo(REWARDS, ANSWERS, ENDED, gamma=1e-9)
    torch.testing.assert_close(blended, (grpo(REWARDS) + GLOBAL) / 2, atol=1e-5, rtol=0)


def test_names_of_answers_do_not_matter_and_the_global_part_sums_to_zero():
    other = [[{"7": "x", "3": " Y"}[one] for one in group] for group in ANSWERS]
    assert torch.equal(copo(REWARDS, other, ENDED), copo(REWARDS, ANSWERS, ENDED))
    torch.manual_seed(0)
    rewards = torch.rand(5, 4, dtype=torch.float64)
    assert copo(rewards, None, torch.ones(5, 4), rho=1e3).sum().abs() < 1e-9


def test_case_and_spacing_are_ignored_and_missing_answers_agree_with_none():
    def weight(group, ended=(1, 1, 1, 1)):
        rewards = torch.tensor([[1.0] * 4, [0.0] * 4], dtype=torch.float64)
        finished = torch.tensor([ended, (1, 1, 1, 1)])
        return copo(rewards, [group, ["3"] * 4], finished, eps=1e-12)[0, 0].item() * math.sqrt(2)

    assert weight([" Two  cats", "two cats", "TWO CATS", "two cats"]) == pytest.approx(0.952574, abs=1e-6)
    apart = 1 - 0.761130
    assert weight([None, None, None, "3"]) == pytest.approx(apart, abs=1e-6)
    assert weight(["3", "3", "3", "3"], (0, 0, 0, 1)) == pytest.approx(apart, abs=1e-6)


def test_unscored_completions_leave_means_and_clusters():
    rewards = torch.tensor([[1.0, NAN, 1, NAN], [0, 0, NAN, NAN], [NAN] * 4], dtype=torch.float64)
    answers = [["7", "9", "7", None], ["3", "3", "1", "2"], [None] * 4]
    found = copo(rewards, answers, ENDED)
    assert (found[0, 0] > 0) & (found[1, 0] < 0)
    assert not found[rewards.isnan()].any()
    assert found[0, 0] == found[0, 2]


def test_one_prompt_and_equal_prompts_have_no_global_part():
    assert not copo(REWARDS[:1], ANSWERS[:1], ENDED[:1]).any()
    assert not copo(REWARDS[[0, 0]], [ANSWERS[0]] * 2, ENDED[:2]).any()
    alone = copo(REWARDS[:, :1], [["7"], ["3"], ["7"]], ENDED[:, :1])
    assert alone.squeeze(1).tolist() == pytest.approx([0.549960, -1.099920, 0.549960], abs=1e-3)
