"""Replay: the buffer's contents over iterations, and SPEAR's worked numbers and invariants."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_cpgd.algorithms.by_row.replay import ReplayBuffer, largest_power_of_two, smallest_capacity, spear
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from tests.algorithms.by_row.test_entries import entries
from tests.fakes.objectives import build, message

# Means 0.125, 0.25, 0.5 and 0.875, of which the median is 0.375.
GROUPS = torch.zeros(4, 8, dtype=torch.float64)
for row, right in enumerate((1, 2, 4, 7)):
    GROUPS[row, :right] = 1


def outcomes(iteration, taken_up=None, *, replayed=0, rewards=GROUPS):
    state = None if taken_up is None else taken_up.state()
    return replace(Outcomes.of_rewards(rewards), iteration=iteration, entries=state, replayed=replayed)


def memory(**options):
    made = ReplayBuffer(**options)
    made.note(outcomes(1))
    return made


def replayed(rewards, *, size, fill=0.0, seed=0, advantages=None, **options):
    given_rewards = torch.tensor(rewards, dtype=torch.float64)
    stored = torch.ones_like(given_rewards) if advantages is None else torch.tensor(advantages)
    return spear(given_rewards, stored, memory(), seed, size=size, fill=fill, **options).tolist()


def test_advantages_by_hand():
    found = replayed([1.0, 0.375, 0.0], size=4)
    assert found[0] == pytest.approx(0.625)
    assert math.isnan(found[1])
    assert math.isnan(found[2])
    # Standard deviations are √(p(1 − p)); the median of four is the mean of the middle two.
    # They are √(7/64) twice, √(3/16) and √(1/4).
    spread = (math.sqrt(7 / 64) + math.sqrt(3 / 16)) / 2
    assert replayed([1.0], size=1, scale=True) == [pytest.approx(0.625 / spread)]
    assert replayed([1.0, 0.0], size=2, decay=0.5, advantages=[3.0, 2.0])[0] == 1.5


@pytest.mark.parametrize(("count", "expected"), [(5, 4), (8, 8), (13, 8), (1, 1), (0, 0)])
def test_the_largest_power_of_two_is_replayed(count, expected):
    found = replayed([1.0] * count, size=8)
    assert sum(value == value for value in found) == expected == largest_power_of_two(min(count, 8))


def test_nothing_is_replayed_before_the_buffer_is_full():
    assert smallest_capacity(8, 1.5) == 13
    assert all(math.isnan(value) for value in replayed([1.0] * 12, size=8, fill=1.5))
    assert sum(value == value for value in replayed([1.0] * 13, size=8, fill=1.5)) == 8
    # Those below the level do not fill it.
    assert all(math.isnan(value) for value in replayed([1.0] * 12 + [0.0] * 9, size=8, fill=1.5))
    nothing = spear(torch.ones(9), torch.ones(9), ReplayBuffer(), 0, size=4, fill=0.0)
    assert nothing.isnan().all()


def test_the_draw_depends_on_the_seed_alone():
    draws = [tuple(map(str, replayed([1.0] * 9, size=4, seed=seed))) for seed in (1, 1, 2, 3, 4)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 9))
def test_no_advantage_is_above_the_distance_of_the_best_and_all_are_positive(rewards, seed):
    found = [value for value in replayed(rewards, size=8, seed=seed) if value == value]
    assert all(0 < value <= max(rewards) - 0.375 + 1e-12 for value in found)


def test_an_entry_counts_less_as_the_policy_improves():
    made = memory()
    before = spear(torch.ones(1).double(), torch.ones(1), made, 0, size=1, fill=0.0)
    made.note(outcomes(2, rewards=GROUPS[[3, 3, 3]]))
    after = spear(torch.ones(1).double(), torch.ones(1), made, 0, size=1, fill=0.0)
    assert before.item() == pytest.approx(0.625)
    assert after.item() == pytest.approx(0.125)


def test_the_buffer_takes_up_completions_above_the_bound_that_are_learned_from():
    usable = torch.tensor([[True, True], [True, False]])
    advantages = torch.tensor([[0.5, 0.0], [-1.0, 2.0]])
    assert ReplayBuffer().admits(advantages, usable).tolist() == [[True, False], [False, False]]
    assert not ReplayBuffer(least=0.5).admits(advantages, usable).any()


def test_old_entries_go_and_the_newest_stay():
    made = ReplayBuffer(capacity=3, tolerate=2)
    made.note(outcomes(1, entries(1, 2)))
    made.note(outcomes(2, entries(3, 4, iteration=2)))
    assert made.entries.lengths.tolist() == [2, 3, 4]
    made.note(outcomes(3))
    # In iteration 4 those of iteration 1 are 3 old.
    assert made.entries.iterations.tolist() == [2, 2]
    made.note(outcomes(4))
    assert not len(made.entries)


def test_a_replay_empties_the_buffer_of_all_but_the_iterations_own():
    made = ReplayBuffer()
    made.note(outcomes(1, entries(1, 2)))
    made.note(outcomes(2, entries(5, iteration=2), replayed=2))
    assert made.entries.lengths.tolist() == [5]
    kept = ReplayBuffer(emptied=False)
    kept.note(outcomes(1, entries(1, 2)))
    kept.note(outcomes(2, entries(5, iteration=2), replayed=2))
    assert kept.entries.lengths.tolist() == [1, 2, 5]


def test_the_history_is_bounded_and_leaves_out_groups_without_a_score():
    rewards = torch.cat([torch.full((1, 8), torch.nan), GROUPS])
    made = ReplayBuffer(history=3)
    made.note(outcomes(1, rewards=rewards))
    assert made.baselines[:, 0].tolist() == [0.25, 0.5, 0.875]


def test_a_restored_buffer_is_the_same():
    made, other = ReplayBuffer(), ReplayBuffer()
    made.note(outcomes(1, entries(1, 2)))
    other.load_state_dict(made.state_dict())
    assert repr(other.state_dict()) == repr(made.state_dict())
    state = repr(made.state_dict())
    other.note(outcomes(2, entries(5, iteration=2)))
    assert repr(made.state_dict()) == state


def test_a_buffer_that_cannot_become_full_is_refused():
    credit = {"name": "spear", "size": 128, "capacity": 192}
    assert "capacity = 192 entries are never more than fill · size" in message(replay={"credit": credit})
    credit["capacity"] = 193
    assert build(replay={"credit": credit}).replay.name == "spear"
