"""Statistics of several samples per question, and of two results on the same questions."""

from __future__ import annotations

from itertools import combinations, product
from math import sqrt
from statistics import fmean, stdev

import pytest

from eval.scoring.statistics import (
    clustered_interval,
    maj_at_k,
    mcnemar_p,
    mean_difference,
    paired_interval,
    pass_at_k,
    wilson_interval,
)
from rewards import RuleError


def never(answer: str, other: str) -> bool:
    raise AssertionError(f"asked whether {answer} is {other}")


def never_same(answer: str, other: str) -> bool:
    return False


def same_number(answer: str, other: str) -> bool:
    return float(answer) == float(other)


@pytest.mark.parametrize(("correct", "total", "k"), [(0, 4, 2), (1, 4, 1), (2, 5, 3), (3, 5, 3), (4, 4, 2)])
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_answer(
    correct: int, total: int, k: int
) -> None:
    answers = [i < correct for i in range(total)]
    draws = [any(draw) for draw in combinations(answers, k)]
    assert pass_at_k(correct, total, k) == pytest.approx(sum(draws) / len(draws), rel=1e-12)


@pytest.mark.parametrize(("correct", "total", "k"), [(1, 4, 5), (1, 4, 0), (5, 4, 1), (-1, 4, 1)])
def test_pass_at_k_refuses_more_draws_than_answers_and_impossible_counts(
    correct: int, total: int, k: int
) -> None:
    with pytest.raises(RuleError, match="requires 0 ≤ right ≤ total"):
        pass_at_k(correct, total, k)


def test_the_majority_counts_equal_answers_however_they_are_written() -> None:
    assert maj_at_k(["4", "5", "5", "4.0", "4.00"], [1, 0, 0, 1, 1], same_number) == 1


def test_a_tie_is_the_mean_of_the_tied_answers_in_any_order() -> None:
    answers, scores = ["4", "5", "6", "4", "5"], [1.0, 0.0, 0.0, 1.0, 0.0]
    assert maj_at_k(answers, scores, same_number) == 0.5
    assert maj_at_k(answers[::-1], scores[::-1], same_number) == 0.5


def test_samples_without_an_answer_have_no_vote() -> None:
    assert maj_at_k([None, None, "4"], [0, 0, 1], never) == 1
    assert maj_at_k([None, None], [0, 0], never) == 0


def test_answers_of_different_scores_are_not_the_same() -> None:
    assert maj_at_k(["4", "4", "4.0"], [1, 0, 0], same_number) == 0
    assert maj_at_k(["4", "4.0", "5", "6"], [0.5, 0, 0, 0.5], never_same) == pytest.approx(0.25)


def test_right_answers_are_one_however_they_are_written() -> None:
    assert maj_at_k(["4", "four", "5", "6"], [1, 1, 0, 0], never_same) == 1


@pytest.mark.parametrize(
    ("answers", "scores", "majority"),
    [(["4", "5", "6"], [0, 0, 0], 0), (["4", "5", "4"], [1, 1, 0], 1), (["4", "4.0"], [1, 1], 1)],
)
def test_answers_are_not_compared_where_the_result_does_not_matter(
    answers: list[str], scores: list[float], majority: float
) -> None:
    assert maj_at_k(answers, scores, never) == majority


@pytest.mark.parametrize(
    ("both", "gained", "lost", "neither", "low", "high"),
    [
        # Cavo et al. 2012 and Bentur et al. 2009, as Fagerland et al. work them out by this method.
        (59, 6, 16, 80, -0.1186, -0.0046),
        (1, 1, 7, 12, -0.507, -0.026),
        # Altman et al. 2000, table 6.2.
        (14, 5, 0, 22, 0.0115, 0.2265),
    ],
)
def test_the_paired_interval_is_that_of_published_examples(
    both: int, gained: int, lost: int, neither: int, low: float, high: float
) -> None:
    assert paired_interval(both, gained, lost, neither) == pytest.approx((low, high), abs=5e-4)


def test_the_paired_interval_turns_around_with_the_two_results() -> None:
    low, high = paired_interval(50, 12, 7, 31)
    assert paired_interval(50, 7, 12, 31) == pytest.approx((-high, -low), rel=1e-12)


def test_the_paired_interval_is_never_outside_its_range() -> None:
    for counts in product((0, 1, 7), repeat=4):
        low, high = paired_interval(*counts)
        assert -1 <= low <= high <= 1


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (7, 1, 2 * (1 + 8) / 256), (3, 3, 1.0)],
)
def test_mcnemars_p_is_that_of_fair_coins(gained: int, lost: int, p: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(p, rel=1e-12)
    assert mcnemar_p(lost, gained) == mcnemar_p(gained, lost)


def test_one_response_to_each_question_has_wilsons_interval() -> None:
    scores = {str(i): [float(i < 3)] for i in range(10)}
    assert clustered_interval(scores) == pytest.approx(wilson_interval(3, 10), rel=1e-9)


def test_answers_that_are_always_the_same_count_once() -> None:
    scores = {str(i): [float(i < 3)] * 8 for i in range(10)}
    assert clustered_interval(scores) == pytest.approx(wilson_interval(3, 10), rel=1e-9)


def test_answers_that_vary_within_a_question_narrow_the_interval() -> None:
    mixed = {str(i): [1.0, 0.0] for i in range(10)}
    low, high = clustered_interval(mixed)
    assert wilson_interval(5, 10)[0] < low < 0.5 < high < wilson_interval(5, 10)[1]


def test_all_right_leaves_the_uncertainty_of_as_many_questions() -> None:
    assert clustered_interval({"a": [1.0, 1.0], "b": [1.0, 1.0]}) == wilson_interval(2, 2)


def test_the_mean_difference_has_its_standard_error() -> None:
    differences = [0.5, -0.25, 0.0, 0.75, 0.25, 0.0]
    (low, high), p = mean_difference(differences)
    error = stdev(differences) / sqrt(6)
    assert (low + high) / 2 == pytest.approx(fmean(differences), rel=1e-12)
    assert (high - low) / 2 == pytest.approx(1.959963984540054 * error, rel=1e-9)
    assert 0 < p < 1


def test_no_difference_anywhere_is_no_evidence_of_one() -> None:
    assert mean_difference([0.0, 0.0, 0.0]) == ((0.0, 0.0), 1.0)
    assert mean_difference([1.0]) == ((-1.0, 1.0), 1.0)
