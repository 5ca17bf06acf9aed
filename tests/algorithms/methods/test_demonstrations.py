"""Demonstrations: the gate's worked numbers, and the mixture's gradient against its objective's."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.methods.demonstrations import always, hpt
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.errors import UserError
from mm_cpgd.training.sft import LIKELIHOOD, sft_objective
from tests.fakes.objectives import build, message

NAN = float("nan")


def groups(*right: int, size: int = 8) -> torch.Tensor:
    """Accuracies of groups with so many right completions."""
    return torch.tensor([[1.0] * k + [0.0] * (size - k) for k in right]).double()


def gate(accuracy, teachable=None, **options):
    known = torch.ones(len(accuracy), dtype=torch.bool) if teachable is None else torch.tensor(teachable)
    factors, weights = hpt(accuracy, known, **options)
    return factors.tolist(), weights.tolist()


def test_without_a_threshold_only_what_is_never_solved_is_taught():
    assert gate(groups(0, 1, 8)) == ([0, 1, 1], [1, 0, 0])


def test_a_threshold_of_two_eighths_teaches_up_to_two_of_eight():
    assert gate(groups(0, 1, 2, 3), gamma=2 / 8, coefficient=0.3) == ([0, 0, 0, 1], [0.3, 0.3, 0.3, 0])


def test_the_threshold_is_for_the_scored_completions_and_nothing_is_known_of_the_others():
    unscored = torch.tensor([[0, NAN, NAN, 1], [0, 0, NAN, NAN], [NAN] * 4]).double()
    assert gate(unscored) == ([1, 0, 1], [0, 1, 0])


def test_without_a_solution_a_prompt_learns_from_its_rollouts():
    assert gate(groups(0, 0), [True, False]) == ([0, 1], [1, 0])


@given(st.lists(st.integers(0, 8), min_size=1, max_size=6), st.floats(-0.5, 1.5), st.data())
def test_a_prompt_has_either_and_a_higher_threshold_teaches_no_fewer(right, gamma, data):
    teachable = data.draw(st.lists(st.booleans(), min_size=len(right), max_size=len(right)))
    factors, weights = gate(groups(*right), teachable, gamma=gamma)
    assert [f + w for f, w in zip(factors, weights, strict=True)] == [1] * len(right)
    _, more = gate(groups(*right), teachable, gamma=gamma + 0.1)
    assert all(w <= m for w, m in zip(weights, more, strict=True))
    assert not any(gate(groups(*right), teachable, gamma=-1)[1])
    assert gate(groups(*right), teachable, gamma=1)[1] == [float(known) for known in teachable]


def test_both_at_once_with_constant_weights():
    factors, weights = always(torch.tensor([True, False]), rollouts=0.5, coefficient=2.0)
    assert (factors.tolist(), weights.tolist()) == ([0.5, 0.5], [2, 0])


def test_the_loss_of_a_solution_is_the_mean_of_its_negative_log_likelihoods():
    logprobs = torch.tensor([[0.5, 0.25]]).log()
    mask, given_logprobs = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    for weight in (1.0, 0.3):
        advantages, lengths = torch.tensor([weight]), torch.tensor([2.0])
        loss, _ = sft_objective(LIKELIHOOD, 8).loss(logprobs, given_logprobs, advantages, mask, lengths)
        assert loss.item() == pytest.approx(weight * 1.039721, abs=1e-6)
    assert pytest.approx(1.039721, abs=1e-6) == (math.log(2) + math.log(4)) / 2


def test_rollouts_and_solutions_together_follow_the_gradient_of_their_common_objective():
    # One token of five; every action is a row, weighted with its probability: the expectation, not a sample.
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.0, 0.0]).double()
    demonstrator = torch.tensor([0.1, 0.6, 0.2, 0.05, 0.05]).double()
    logits = torch.tensor([0.3, -0.2, 0.1, 0.7, -1.0], dtype=torch.float64, requires_grad=True)
    mu = 0.7
    probabilities = logits.softmax(0)
    kl = (demonstrator * (demonstrator / probabilities).log()).sum()
    (expected,) = torch.autograd.grad((probabilities * rewards).sum() - mu * kl, logits)
    logprobs = logits.log_softmax(0).unsqueeze(1)
    mask, lengths = torch.ones(5, 1, dtype=torch.bool), torch.ones(5).double()
    rollouts = build(recipe="pg", completions=5, max_new_tokens=1)
    weighted = [
        (rollouts, probabilities.detach() * rewards),
        (sft_objective(LIKELIHOOD, 1), mu * demonstrator),
    ]
    total = torch.zeros(()).double()
    for objective, advantages in weighted:
        loss, _ = objective.loss(logprobs, logprobs.detach(), advantages, mask, lengths)
        total = total + 5 * loss  # the token mean divides by the five rows
    (found,) = torch.autograd.grad(-total, logits)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def mixture(path: str) -> tuple[torch.Tensor, torch.Tensor]:
    objective: Objective = build(recipe="dr_grpo", demonstrations={"name": path})
    return objective.mix(Outcomes.of_rewards(groups(0, 1)), torch.tensor([True, True]))


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ("teachable", "Tensor"),
        ("(teachable, teachable[:1])", r"\[\(2,\), \(1,\)\]"),
        ("(teachable, -2.0 * teachable)", r"\[\(2,\), \(2,\)\]"),
        ("(teachable, 1.0)", r"\[\(2,\), 'float'\]"),
    ],
)
def test_a_part_that_returns_something_else_is_told_what_it_has_to(tmp_path, result, shown):
    (tmp_path / "own.py").write_text(f"def part(teachable):\n    return {result}\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"returned {shown}; it has to return two tables of 2 finite"):
        mixture(f"{tmp_path / 'own.py'}:part")


def test_without_such_a_part_everything_learns_from_its_rollouts():
    found = build().mix(Outcomes.of_rewards(groups(0, 1)), torch.tensor([True, True]))
    assert [one.tolist() for one in found] == [[1, 1], [0, 0]]


def test_the_example_teaches_at_the_beginning_of_the_run():
    objective = build(
        recipe="dr_grpo", demonstrations={"name": "examples/parts/teach_first.py:teach_first", "share": 0.5}
    )
    outcomes = vars(Outcomes.of_rewards(groups(0, 1)))
    for progress, expected in ((0.0, [1, 0]), (0.5, [0, 0])):
        found = objective.mix(Outcomes(**{**outcomes, "progress": progress}), torch.tensor([True, False]))
        assert found[1].tolist() == expected


def test_a_coefficient_of_nothing_is_refused_and_a_schedule_is_not():
    assert "coefficient = 0" in message(demonstrations={"name": "hpt", "coefficient": 0})
    fading = {"name": "hpt", "coefficient": {"from": 1.0, "to": 0.0}}
    assert build(demonstrations=fading).demonstrations is not None
