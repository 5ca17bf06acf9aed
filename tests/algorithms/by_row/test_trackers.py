"""SPO: its worked numbers, its invariants, and where it is another method."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_cpgd.algorithms.advantages import reinforce_pp
from mm_cpgd.algorithms.by_row.trackers import ValueTracker, spo, tracker_variance
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.errors import UserError

ROW = torch.tensor([0])


def tracker(a, b, rho=0.875):
    made = ValueTracker(rho)
    rows = torch.arange(len(a))
    made.table.set("a", rows, torch.tensor(a))
    made.table.set("b", rows, torch.tensor(b))
    return made


def noted(made, *rewards):
    for reward in rewards:
        made.note(Outcomes.of_rewards(torch.tensor([[reward]])))
    return made.values(ROW).item()


@pytest.mark.parametrize(
    ("rho", "reward", "value"),
    [(0.96, 1.0, 0.459293), (0.933033, 1.0, 0.461088), (0.875, 1.0, 0.465278), (0.875, 0.0, 0.340278)],
)
def test_the_tracker_by_hand(rho, reward, value):
    made = tracker([3.111111], [4.888889], rho)
    assert made.values(ROW).item() == pytest.approx(0.388889, abs=1e-6)
    assert noted(made, reward) == pytest.approx(value, abs=1e-6)


def test_the_advantage_by_hand_is_of_the_values_before_the_rewards():
    made = tracker([3.111111, 1.0, 9.0], [4.888889, 1.0, 1.0])
    found = spo(torch.tensor([[1.0], [0.0], [1.0]]), torch.arange(3), made)
    assert found.squeeze(1).tolist() == pytest.approx([0.972297, -1.025573, 0.053277], abs=1e-5)
    scores = tracker_variance(made, 3)
    assert scores.tolist() == pytest.approx([0.537498, 0.55, 0.35], abs=1e-5)


@given(st.lists(st.sampled_from([0.0, 1.0]), max_size=60))
def test_the_tracker_stays_within_what_it_can_remember(rewards):
    made = tracker([4.0], [4.0])
    noted(made, *rewards)
    size = made.table.get("a", ROW) + made.table.get("b", ROW)
    # 1 / (1 − ρ) = 8 is where a + b stays.
    assert size.item() == pytest.approx(8)


def test_the_value_goes_to_the_success_rate():
    made = ValueTracker(0.99)
    rewards = torch.bernoulli(torch.full((2000,), 0.3), generator=torch.Generator().manual_seed(0))
    assert noted(made, *rewards.tolist()) == pytest.approx(0.3, abs=0.08)


def test_rows_that_were_never_seen_make_it_reinforce_pp():
    rewards = torch.tensor([[1.0], [0.0], [0.0], [1.0], [1.0]]).double()
    found = spo(rewards, torch.arange(5), ValueTracker())
    torch.testing.assert_close(found, reinforce_pp(rewards, eps=1e-8))


def test_a_permuted_batch_gives_permuted_advantages_that_sum_to_0():
    made = tracker([1.0, 2.0, 5.0, 0.5], [3.0, 1.0, 1.0, 0.5])
    rewards, order = torch.tensor([[1.0], [0.0], [1.0], [0.0]]), torch.tensor([2, 0, 3, 1])
    found = spo(rewards, torch.arange(4), made)
    torch.testing.assert_close(spo(rewards[order], order, made), found[order])
    assert found.sum().item() == pytest.approx(0, abs=1e-5)


def test_groups_are_noted_together_and_what_is_unscored_not_at_all():
    nan = float("nan")
    made = tracker([2.0, 2.0], [2.0, 2.0])
    made.note(Outcomes.of_rewards(torch.tensor([[1.0, 0.0, 1.0], [nan, nan, nan]])))
    rows = torch.arange(2)
    assert made.table.get("a", rows).tolist() == [0.875 * 2 + 2, 2]
    assert made.table.get("b", rows).tolist() == [0.875 * 2 + 1, 2]
    found = spo(torch.tensor([[1.0, nan], [0.0, 1.0]]), rows, made)
    assert found[0, 1] == 0
    assert not found.isnan().any()


def test_equal_gains_are_no_signal():
    assert not spo(torch.full((3, 1), 0.1), torch.arange(3), ValueTracker()).any()


def test_a_reward_out_of_range_is_named():
    with pytest.raises(UserError, match=r"rewards from 0 to 1\.5 do not lie in low = 0 to high = 1"):
        spo(torch.tensor([[1.5], [0.0]]), torch.arange(2), ValueTracker())
