"""Rollout budgets: the knapsack's worked numbers, against brute force, and its edges."""

import itertools

import pytest
import torch

from mm_cpgd.algorithms.by_row.budgets import SuccessRates, gain, knapsack, need
from mm_cpgd.errors import UserError

NAN = float("nan")


def rates(*values):
    made = SuccessRates()
    made.table.set("rate", torch.arange(len(values)), torch.tensor(values).double())
    return made


def value(p, n):
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def dealt(*values, completions=8, **options):
    return knapsack(torch.arange(len(values)), completions, rates(*values), **options).tolist()


def test_the_optimum_by_hand():
    p = (0.1, 0.5, 0.9)
    assert dealt(*p, high=20) == [15, 7, 2]
    assert sum(map(value, p, (15, 7, 2))) == pytest.approx(0.188990, abs=1e-6)
    assert sum(map(value, p, (8, 8, 8))) == pytest.approx(0.175281, abs=1e-6)
    assert [gain(one, 8) for one in p] == pytest.approx([0.00348679, 0.00048828, 0.00038742], abs=1e-7)
    assert [need(one, 0.9) for one in p] == pytest.approx([21.8543, 3.3219, 21.8543], abs=1e-4)


@pytest.mark.parametrize("p", [(0.2, 0.4, 0.7), (0.125, 0.125, 0.75), (0.05, 0.95, 0.5)])
def test_one_by_one_is_as_good_as_every_division(p):
    found = dealt(*p, completions=6, confidence=0.999)
    divisions = (n for n in itertools.product(range(2, 15), repeat=3) if sum(n) == 18)
    best = max(sum(map(value, p, n)) for n in divisions)
    assert sum(found) == 18
    assert sum(map(value, p, found)) == pytest.approx(best)


def test_rows_that_were_never_drawn_get_the_default():
    assert dealt(NAN, NAN, NAN) == [8, 8, 8]
    # 0.3 needs 7 to show both outcomes; the 13 that are left go to the row that was never solved.
    assert dealt(NAN, 1.0, 0.0, 0.3) == [8, 2, 15, 7]


def test_what_nobody_needs_goes_to_the_prompts_never_solved():
    found = dealt(0.5, 0.0, 1.0)
    # Four completions show both outcomes of p = 1/2 with probability 0.875, the first above the need of 3.3.
    assert found == [4, 18, 2]
    assert dealt(1.0, 1.0) == [8, 8]
    assert dealt(0.0, 0.0, 1.0) == [11, 11, 2]


def test_equal_rates_give_equal_shares_and_the_sum_is_always_the_budget():
    assert dealt(0.25, 0.25, 0.25, 0.25, confidence=0.999) == [8, 8, 8, 8]
    for seed in range(20):
        torch.manual_seed(seed)
        values = (torch.randint(0, 9, (5,)) / 8).tolist()
        found = dealt(*values)
        assert sum(found) == 40
        assert min(found) >= 2


def test_a_budget_below_the_minimum_is_named():
    with pytest.raises(UserError, match=r"rollout\.completions=1 is below low = 2"):
        dealt(0.5, completions=1)
