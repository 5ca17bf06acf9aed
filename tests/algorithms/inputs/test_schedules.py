"""Options that change over the run."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_cpgd.algorithms.inputs.schedules import Schedule, progress_of, schedule_of
from tests.fakes.objectives import build, message

SHARES = st.floats(0, 1)


def test_a_linear_and_a_cosine_course_by_hand():
    linear = Schedule(2.0, 1.0, begin=0.2, until=0.6)
    assert [linear.at(u) for u in (0, 0.2, 0.3, 0.4, 0.6, 1)] == pytest.approx([2, 2, 1.75, 1.5, 1, 1])
    rising = Schedule(0.0, 1.0, "cosine")
    # (1 − cos(π/4)) / 2 and its half way.
    assert [rising.at(u) for u in (0, 0.25, 0.5, 1)] == pytest.approx([0, 0.146447, 0.5, 1], abs=1e-6)


def test_a_step_jumps_at_its_end():
    step = Schedule(1.0, 0.0, "step", until=0.5)
    assert [step.at(u) for u in (0, 0.499, 0.5, 1)] == [1, 1, 0, 0]


@given(st.floats(-5, 5), st.floats(-5, 5), st.sampled_from(["linear", "cosine", "step"]), SHARES, SHARES)
def test_a_schedule_is_monotone_and_stays_between_its_ends(start, end, shape, first, second):
    made = Schedule(start, end, shape, 0.1, 0.9)
    early, late = made.at(min(first, second)), made.at(max(first, second))
    assert (late - early) * (end - start) >= -1e-9
    assert min(start, end) - 1e-9 <= early <= max(start, end) + 1e-9


def test_progress_is_0_in_the_first_iteration_and_1_in_the_last():
    assert [progress_of(n, 5) for n in (1, 3, 5, 9)] == [0, 0.5, 1, 1]
    assert progress_of(1, 1) == 0


def test_an_option_of_a_shipped_part_follows_its_schedule():
    kl = {"name": "kl", "coefficient": {"from": 0.4, "to": 0.0, "until": 0.5}, "estimator": "k2"}
    objective = build(recipe="pg", regularizers=[kl], iterations=5)
    zeros, mask, lengths = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.tensor([2])
    penalties = [
        objective.loss(
            zeros, zeros, torch.ones(1), mask, lengths, torch.full((1, 2), -1.0), iteration=number
        )[1]["penalty"]
        for number in (1, 2, 3, 5)
    ]
    assert torch.stack(penalties).tolist() == pytest.approx([0.2, 0.1, 0, 0])


def test_a_schedule_is_shown_in_the_formula():
    kl = {"name": "kl", "coefficient": {"from": 0.4, "to": 0.0, "shape": "cosine"}}
    part = build(regularizers=[kl]).regularizers[0]
    assert "[0.4 → 0, cosine, 0 to 1 of the run]·k" in part.description.text(part.options)


def test_the_range_of_a_filter_may_move_and_is_checked_at_both_ends():
    low = {"from": 0.0, "to": 0.5}
    assert build(selection=[{"name": "accuracy_filter", "low": low}]).selection
    low["to"] = 0.95
    assert "which keeps no prompt" in message(selection=[{"name": "accuracy_filter", "low": low}])


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"name": "kl", "coefficient": {"from": 0.1, "to": -1}}, "Input should be greater than 0"),
        ({"name": "kl", "coefficient": {"from": 0.1, "to": 1, "shape": "sine"}}, "linear, cosine, step"),
        ({"name": "kl", "coefficient": {"from": 0.1, "to": 1, "end": 1}}, "has no key 'end'"),
        ({"name": "kl", "coefficient": {"from": 0.1, "to": 1, "begin": 0.7, "until": 0.6}}, "begin < until"),
        ({"name": "kl", "coefficient": 1, "estimator": {"from": "k2", "to": "k3"}}, "only a fixed value"),
        ({"name": "entropy_control", "target": {"from": 0.1, "to": 1}}, "only a fixed value"),
    ],
)
def test_a_schedule_that_is_none_is_refused_by_name(part, what):
    text = message(regularizers=[part])
    assert text.startswith(f"algorithm.regularizers: {part['name']}")
    assert what in text


def test_an_option_that_is_read_once_cannot_be_a_schedule():
    text = message(selection=[{"name": "dynamic_sampling", "max_rounds": {"from": 1, "to": 5}}])
    assert "max_rounds cannot be a schedule" in text


def test_a_multiplied_schedule_has_multiplied_values():
    made = schedule_of({"shape": "linear"}, 1.0, 3.0) * 2.0
    assert (made.at(0), made.at(0.5), made.at(1)) == (2, 4, 6)
    assert math.isclose(made.at(0.25), 3)
