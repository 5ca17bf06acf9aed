"""Advantages by token: GTPO's worked numbers, its invariants, and its gradient against the closed form."""

import math

import pytest
import torch

from mm_cpgd.algorithms.token_advantages import FirstEntropy, conflict_tokens, entropy_shaped
from tests.fakes.objectives import build


def factors(*rows, signs, finished=None, prompts=None, **options):
    """λ of each row, its own tokens alone; 0 is padding."""
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    ones = torch.ones(tokens.shape)
    base = torch.tensor(signs).float()[:, None].expand(tokens.shape)
    found = conflict_tokens(
        ones,
        base,
        tokens,
        mask,
        torch.tensor(prompts or [0] * len(rows)),
        torch.tensor(finished or [1.0] * len(rows)),
        **options,
    )
    return [row[: len(own)].tolist() for row, own in zip(found, rows, strict=True)]


def test_shared_beginnings_and_ends_by_hand():
    found = factors((5, 7, 1, 9), (5, 7, 2, 9), (5, 3, 1, 9), signs=[1, -1, -1])
    assert found == [[4, 4, 4, 4], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_ends_are_counted_from_each_completions_own_last_token():
    found = factors((5, 7, 1, 8, 9), (5, 7, 2, 9), signs=[1, -1])
    assert found == [[2, 2, 1, 1, 2], [0, 0, 1, 0]]


def test_a_cut_off_completion_has_no_end():
    found = factors((5, 1, 9), (5, 2, 9), signs=[1, -1], finished=[1.0, 0.0])
    assert found == [[2, 1, 1], [0, 1, 1]]


def test_groups_and_completions_without_a_sign_do_not_mix():
    assert factors((5, 9), (5, 9), signs=[1, -1], prompts=[0, 1]) == [[1, 1], [1, 1]]
    assert factors((5, 9), (5, 9), (5, 9), signs=[1, 0, 0]) == [[1, 1], [1, 1], [1, 1]]


def test_names_of_tokens_and_order_of_the_group_do_not_matter():
    torch.manual_seed(0)
    rows = [tuple(torch.randint(1, 3, (5,)).tolist()) for _ in range(6)]
    signs = [1, -1, 1, -1, -1, 1]
    found = factors(*rows, signs=signs)
    assert factors(*[tuple(7 - one for one in row) for row in rows], signs=signs) == found
    assert factors(*rows[::-1], signs=signs[::-1]) == found[::-1]
    assert any(value in (2, 4) for row in found for value in row)


def shaped(mean, advantage, state, **options):
    entropy = torch.tensor([[mean - 0.1, mean + 0.1, 99.0]])
    mask = torch.tensor([[True, True, False]])
    return entropy_shaped(torch.full((1, 3), advantage), entropy, mask, state, **options)[0, 0].item()


def test_the_entropy_term_by_hand():
    assert shaped(0.3, 0.866, 0.4) == pytest.approx(0.836)
    assert shaped(0.5, -0.866, 0.4) == pytest.approx(-0.916)
    assert shaped(0.75, 0.866, 0.4) == 0


def test_a_policy_that_began_above_the_threshold_loses_no_completion():
    assert shaped(0.75, 0.866, 0.8) == pytest.approx(0.791)
    # In the first iteration the batch itself says where the policy begins.
    assert shaped(0.75, 0.866, None) == pytest.approx(0.791)
    assert shaped(0.5, 0.866, None) == pytest.approx(0.816)


def test_the_entropy_of_the_first_step_is_kept():
    state = FirstEntropy()
    for entropy in (math.nan, 0.5, 0.1):
        state.observe({"entropy": entropy})
    again = FirstEntropy()
    again.load_state_dict(state.state_dict())
    assert again.value == state.value == 0.5


def rows(advantages, tokens, entropy, prompts):
    return {
        "advantages": torch.tensor(advantages)[:, None].expand(len(advantages), 3),
        "old_entropy": torch.full((len(advantages), 3), entropy),
        "tokens": torch.tensor(tokens),
        "mask": torch.ones(len(advantages), 3, dtype=torch.bool),
        "prompt_of": torch.tensor(prompts),
        "finished": torch.ones(len(advantages)),
    }


def test_the_gradient_is_that_of_the_formula():
    """δ(A − g⟨H⟩)λ/|y|, mean over completions; bad completions have none in a run."""
    objective = build(recipe="gtpo")
    given = rows([1.0, -1.0], [[5, 1, 9], [5, 2, 9]], 0.3, [0, 0])
    by_token = objective.advantages_by_token(given)
    logprobs = torch.zeros(2, 3, requires_grad=True)
    mask, lengths = given["mask"], torch.tensor([3, 3])
    loss, _ = objective.loss(logprobs, torch.zeros(2, 3), by_token, mask, lengths)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    weights = torch.tensor([[2.0, 1, 2], [0, 1, 0]])
    expected = -weights * torch.tensor([[0.97], [-1.03]]) / 3 / 2
    torch.testing.assert_close(gradient, expected)


def test_without_factors_and_entropy_term_it_is_grpo():
    parts = [
        {"name": "entropy_shaped", "scale": 0, "threshold": 1e9},
        {"name": "conflict_tokens", "amplify": 1, "protect": 1},
    ]
    given = rows([1.0, -1.0, 0.5], [[5, 1, 9], [5, 2, 9], [5, 1, 9]], 0.3, [0, 0, 0])
    found = build(recipe="gtpo", token_advantages=parts).advantages_by_token(given)
    torch.testing.assert_close(found, given["advantages"])
