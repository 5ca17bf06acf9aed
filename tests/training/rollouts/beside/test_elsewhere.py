"""Rows from elsewhere: their columns in the tables of an iteration, and their losses beside the rollouts'."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mm_cpgd.policy import Policy
from mm_cpgd.rollout import Completion
from mm_cpgd.training.experience import Experience, plan_mini_batches
from mm_cpgd.training.rollouts.beside.elsewhere import OtherCompletions, Source, beside
from mm_cpgd.training.sft import LIKELIHOOD, sft_objective
from tests.fakes.learning import LENGTHS, assert_same, learner

# Rows of the shared experience that came from elsewhere, one for each of two prompts.
OTHER = torch.tensor([0, 1, 0, 0, 0, 1, 0, 0])
USABLE = torch.tensor([[True, False], [False, False], [True, True]])


def completion(length: int) -> Completion:
    return Completion(torch.ones(length, dtype=torch.long), torch.zeros(length), "", finished=True)


def others() -> OtherCompletions:
    """For the first two of three prompts one completion, of 7 and 9 tokens."""
    return OtherCompletions(
        usable=torch.tensor([[True], [True], [False]]),
        lengths=torch.tensor([[7], [9], [0]]),
        advantages=torch.tensor([[0.5], [2.0], [0.0]]),
        groups=[[completion(7)], [completion(9)], [None]],
    )


def test_their_columns_come_after_the_sampled_ones() -> None:
    lengths = torch.tensor([[3, 5], [2, 2], [4, 1]])
    groups = [[completion(int(n)) for n in row] for row in lengths]
    found = beside(USABLE, lengths, torch.zeros(3, 2), groups, [others()])
    assert found.source_of.tolist() == [0, 0, 1]
    assert found.usable.tolist() == [[True, False, True], [False, False, True], [True, True, False]]
    assert found.advantages[:, 2].tolist() == [0.5, 2.0, 0.0]
    assert [found.completion(0, 0).length, found.completion(1, 2).length] == [3, 9]
    plan = plan_mini_batches(found.usable, found.lengths, 2, found.source_of)
    assert [part.tolist() for part in plan.lengths] == [[3], [4, 1]]
    assert [[part.tolist() for part in own] for own in plan.other_lengths] == [[[7, 9]], [[]]]


def test_without_others_nothing_is_changed() -> None:
    lengths, advantages = torch.ones(3, 2), torch.zeros(3, 2, 4)
    found = beside(USABLE, lengths, advantages, [], [])
    assert found.usable is USABLE
    assert found.lengths is lengths
    assert found.advantages is advantages


def mixed(whole: Experience, source: Tensor = OTHER) -> Experience:
    state = {**whole.state(), "source": source, "given_logprobs": torch.zeros(whole.tokens.shape)}
    lengths = torch.tensor(LENGTHS).float()
    state |= {"lengths": [lengths[source == 0]], "other_lengths": [[lengths[source == 1]]]}
    return Experience.from_state(state, whole.prompts)


def only(whole: Experience, rows: Tensor, advantages: Tensor) -> Experience:
    """The experience of some of the rows."""
    state = whole.state()
    for name in ("tokens", "mask", "prompt_of", "mini_batch"):
        state[name] = state[name][rows]
    lengths = torch.tensor(LENGTHS)[rows].float()
    state |= {"advantages": advantages[rows], "lengths": [lengths]}
    return Experience.from_state(state, whole.prompts)


def step(policy: Policy, rows: Experience, tokens: int = 4096) -> tuple[dict[str, Tensor], dict[str, float]]:
    made, recorder = learner(policy, tokens=tokens)
    made.sources = [Source("elsewhere", sft_objective(LIKELIHOOD, 8))]
    made.metric_names = {**made.metric_names, "elsewhere/loss": "loss", "elsewhere/nll": "nll"}
    (metrics,) = made.update(rows, 1)
    return recorder.steps[0], metrics


@pytest.mark.parametrize("tokens", [1, 120, 4096])
def test_the_gradient_is_the_sum_of_two_losses_with_denominators_of_their_own(
    policy: Policy, whole: Experience, tokens: int
) -> None:
    found, metrics = step(policy, mixed(whole), tokens)
    sampled, alone = step(policy, only(whole, OTHER == 0, whole.advantages))
    # The surrogate of these rows is the policy gradient; of the recipe's, cpgd, it is the same in one step.
    elsewhere, _ = step(policy, only(whole, OTHER == 1, whole.advantages))
    assert_same(found, {name: value + elsewhere[name] for name, value in sampled.items()})
    for name in ("policy/entropy", "policy/drift", "policy/ratio_max", "policy/ratio_min"):
        assert metrics[name] == pytest.approx(alone[name], rel=1e-5)


def test_the_loss_of_likelihood_is_in_nats_and_has_its_rows_weights(
    policy: Policy, whole: Experience
) -> None:
    rows = mixed(whole)
    rows.advantages = torch.where(OTHER == 1, 0.5, rows.advantages)
    _, metrics = step(policy, rows)
    with torch.no_grad():
        logprobs, _ = policy(
            [rows.prompts[p] for p in rows.prompt_of.tolist()], rows.tokens, rows.mask, False, 1.0
        )
    expected = -float(logprobs[rows.mask & (OTHER == 1).unsqueeze(1)].mean())
    assert metrics["nll"] == pytest.approx(expected, rel=1e-5)
    assert metrics["loss"] == pytest.approx(0.5 * expected, rel=1e-5)


def test_where_nothing_sampled_is_learned_from_the_objective_has_no_metrics(
    policy: Policy, whole: Experience
) -> None:
    rows = mixed(whole, torch.ones(8, dtype=torch.long))
    found, metrics = step(policy, rows)
    expected, _ = step(policy, whole_of_likelihood(whole))
    assert_same(found, expected)
    assert all(math.isfinite(value) for value in metrics.values())
    assert not {name for name in metrics if name.startswith("policy/")}


def whole_of_likelihood(whole: Experience) -> Experience:
    return only(whole, torch.ones(8, dtype=torch.bool), whole.advantages)


def test_their_log_probabilities_are_not_compared_with_an_engine(whole: Experience) -> None:
    rows = mixed(whole)
    rows.old_logprobs, rows.sampled_logprobs = torch.zeros(8, 8), torch.where(OTHER == 1, 9.0, 0.0)[:, None]
    assert len(rows.gaps()) == int(rows.lengths[0].sum())
    assert not rows.gaps().any()


def test_no_rows_have_a_source_too(whole: Experience) -> None:
    stand_in = mixed(whole).select(torch.zeros(0, dtype=torch.long))
    assert stand_in.source is not None
    assert stand_in.given_logprobs is not None
    assert stand_in.source.shape == (1,)
    assert not stand_in.sampled_mask.any()
