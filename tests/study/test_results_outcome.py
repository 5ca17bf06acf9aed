"""Definition of a collapse, and the summary of a run; expected values worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from mm_cpgd.study.results import Collapse, area_under, find_collapse, outcome_of


def rows(accuracies: list[float | None], formats: list[float | None] | None = None) -> list[dict[str, Any]]:
    formats = formats or [1.0] * len(accuracies)
    return [
        {"iteration": 4 * i, "eval/accuracy": accuracy, "eval/format": well_formed}
        for i, (accuracy, well_formed) in enumerate(zip(accuracies, formats, strict=True))
    ]


def test_a_run_that_keeps_half_of_its_best_accuracy_has_not_collapsed():
    assert find_collapse(rows([0.1, 0.9, 0.45]), diverged=False) == Collapse()


def test_a_run_below_half_of_its_best_at_the_end_has_collapsed_since_it_fell():
    found = find_collapse(rows([0.1, 0.9, 0.5, 0.4, 0.2]), diverged=False)
    assert found == Collapse(("accuracy",), onset=12)


def test_a_fall_that_recovers_is_not_a_collapse():
    assert not find_collapse(rows([0.1, 0.9, 0.1, 0.1, 0.6]), diverged=False)


def test_the_onset_is_of_the_last_fall_only():
    assert find_collapse(rows([0.1, 0.9, 0.2, 0.6, 0.2]), diverged=False).onset == 16


def test_the_best_is_the_best_so_far_not_of_the_complete_run():
    # 0.3 is below half of 0.9, which came later: the stretch begins at the last evaluation.
    assert find_collapse(rows([0.3, 0.3, 0.9, 0.3]), diverged=False).onset == 12


def test_losing_the_accuracy_before_training_is_a_collapse():
    assert find_collapse(rows([0.2, 0.05]), diverged=False).reasons == ("accuracy",)


def test_a_run_that_never_learns_has_not_collapsed():
    assert not find_collapse(rows([0.1, 0.12, 0.1]), diverged=False)


def test_fewer_than_half_well_formed_at_the_end_is_a_collapse_whatever_the_accuracy():
    found = find_collapse(rows([0.1, 0.9, 0.9], [1.0, 0.49, 0.49]), diverged=False)
    assert found == Collapse(("format",), onset=4)


def test_exactly_half_well_formed_is_not_a_collapse():
    assert not find_collapse(rows([0.1, 0.9], [1.0, 0.5]), diverged=False)


def test_a_diverged_run_has_collapsed_at_its_last_row():
    found = find_collapse([*rows([0.1, 0.9]), {"iteration": 6}], diverged=True)
    assert found == Collapse(("not finite",), onset=6)


def test_a_run_that_diverged_before_its_first_row_has_collapsed():
    assert find_collapse([], diverged=True) == Collapse(("not finite",), onset=0)


def test_an_evaluation_without_a_number_at_the_end_is_a_collapse():
    found = find_collapse(rows([0.1, 0.9, None], [1.0, 1.0, None]), diverged=False)
    assert found.reasons == ("accuracy", "format", "not finite")


def test_several_reasons_count_from_the_first():
    found = find_collapse(rows([0.1, 0.9, 0.8, 0.0], [1.0, 1.0, 0.1, 0.0]), diverged=False)
    assert found == Collapse(("accuracy", "format"), onset=8)


def test_the_area_is_the_mean_height_by_trapezoids():
    # 4 · (0 + 1)/2 + 8 · (1 + 0.5)/2 = 2 + 6, over 12 iterations.
    assert area_under([(0, 0.0), (4, 1.0), (12, 0.5)]) == pytest.approx(8 / 12)


def test_an_outcome_holds_extremes_means_and_last_values():
    run = rows([0.2, 0.8, 0.6])
    for row, drift, ratio, entropy in zip(run[1:], (0.1, None), (30.0, 4.0), (0.5, 0.3), strict=True):
        row |= {"policy/drift": drift, "policy/ratio_max": ratio, "policy/ratio_min": 1 / ratio}
        row |= {"policy/entropy": entropy, "policy/clip_fraction": entropy, "tokens/sampled": 100}
    found = outcome_of(run, diverged=False, iterations=8)
    assert (found.final, found.best) == (0.6, 0.8)
    assert found.area == pytest.approx((0.5 * 4 + 0.7 * 4) / 8)
    assert (found.drift, found.ratio_max, found.ratio_min) == (0.1, 30.0, 1 / 30)
    assert (found.entropy, found.sampled_tokens) == (0.3, 200)
    assert found.clip_fraction == pytest.approx(0.4)


def test_the_accuracy_of_a_diverged_run_is_zero_from_there_on():
    # 0.8 until iteration 4, then 0: trapezoids 4 · 0.5 (from 0.2), 1 · 0.4, 3 · 0 over 8 iterations.
    found = outcome_of(rows([0.2, 0.8]), diverged=True, iterations=8)
    assert (found.final, found.best, found.well_formed) == (0.0, 0.8, 0.0)
    assert found.area == pytest.approx(2.4 / 8)


def test_rows_of_iterations_without_an_evaluation_change_nothing():
    run = rows([0.2, 0.8])
    assert outcome_of([*run, {"iteration": 7, "loss": 1.0}], diverged=False, iterations=8).final == 0.8
