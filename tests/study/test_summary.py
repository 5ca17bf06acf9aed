"""Rates, means over seeds, differences and the order of objectives, against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mm_cpgd.study.grid import Grid, Stress, Trial
from mm_cpgd.study.results import Collapse, Outcome, StudyRun
from mm_cpgd.study.summary import (
    TrialOutcome,
    at_own_rate,
    difference,
    mean_of,
    mean_over_seeds,
    rank,
    same_computations,
    summarise,
    t_quantile,
)

LOW, HIGH = Stress(1e-5, 1), Stress(1e-3, 1)
OUTCOME = Outcome(Collapse(), 0.2, 0.9, 0.9, 0.8, 1.0, 0.01, 0.0, 0.1, 1.5, 0.5, 1.0, 100.0)


def run(
    method: str, final: float, seed: int = 1, stress: Stress = LOW, collapsed: bool = False
) -> TrialOutcome:
    collapse = Collapse(("accuracy",), 4) if collapsed else Collapse()
    return TrialOutcome(Trial(method, stress, seed), replace(OUTCOME, final=final, collapse=collapse))


def result(method: str, seed: int, stress: Stress, final: float) -> StudyRun:
    rows = [
        {"iteration": 0, "eval/accuracy": 0.2, "eval/format": 1.0},
        {"iteration": 4, "eval/accuracy": 0.8, "eval/format": 1.0},
        {"iteration": 8, "eval/accuracy": final, "eval/format": 1.0, "policy/drift": 0.5},
    ]
    return StudyRun(Trial(method, stress, seed), "key", "code", None, 8, 1.0, 1.0, rows)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (4, 2.776), (30, 2.042), (60, 2.0003), (120, 1.9799)]
)
def test_students_quantiles_are_those_of_the_tables(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_a_mean_has_students_interval():
    # Of 1, 2, 3: deviation 1, so 2 ± 4.3027 · 1/√3.
    found = mean_of([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert (found.low, found.high) == (pytest.approx(2 - 2.48416, abs=1e-4), pytest.approx(4.48416, abs=1e-4))


def test_a_mean_of_one_value_has_the_widest_interval():
    found = mean_of([0.5], 0.0, 1.0)
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_values_that_are_not_finite_are_left_out_of_a_mean():
    assert mean_of([float("nan"), 2.0, 4.0]).mean == 3.0
    assert mean_of([float("nan")]).mean is None


def test_runs_of_a_seed_are_averaged_before_seeds_are():
    # Seed 1: 0.5; seed 2: 0.9. Spread between levels of a seed does not count.
    runs = [run("pg", 0.1), run("pg", 0.9, stress=HIGH), run("pg", 0.9, 2)]
    found = mean_over_seeds(runs, "final")
    assert (found.mean, found.n) == (pytest.approx(0.7), 2)


def test_a_difference_pairs_runs_of_the_same_level_and_seed():
    runs = [run("cpg", 0.9), run("pg", 0.8), run("cpg", 0.5, 2), run("pg", 0.2, 2), run("cpg", 0.0, 3)]
    found = difference(runs, "cpg", "pg")
    assert (found.mean, found.n) == (pytest.approx(0.2), 2)


def test_a_difference_averages_a_seeds_levels_first():
    runs = [run("cpg", 0.9), run("pg", 0.8), run("cpg", 0.5, 1, HIGH), run("pg", 0.2, 1, HIGH)]
    assert difference(runs, "cpg", "pg").n == 1


def test_runs_that_must_agree_are_compared():
    runs = [run("pg_std", 0.9), run("cpg", 0.9), run("cpgd", 0.8), run("grpo", 0.5), run("pg", 0.1)]
    runs += [run("pg_std", 0.9, stress=Stress(1e-5, 4)), run("cpg", 0.1, stress=Stress(1e-5, 4))]
    assert same_computations(runs) == {"compared": 2, "differ": 1}


def test_fewer_collapses_rank_first_and_then_accuracy():
    def method(rate, final):
        return {"collapse": {"rate": rate, "total": 4}, "final": {"mean": final}}

    methods = {
        "a": method(0.5, 0.9),
        "b": method(0.25, 0.1),
        "c": method(0.25, 0.2),
        "none": method(None, None),
    }
    methods["none"]["collapse"]["total"] = 0
    assert rank(methods) == ["c", "b", "a"]


def test_the_rate_of_a_seed_is_chosen_on_the_others():
    # Seeds 2 and 3 prefer the high rate (0.9 over 0.5): seed 1 is reported there, though worse for it.
    # For seeds 2 and 3 the others' means are: low (0.8 + 0.5)/2, high (0.1 + 0.9)/2, so low.
    runs = [run("pg", 0.8, 1), run("pg", 0.1, 1, HIGH)]
    runs += [run("pg", 0.5, seed) for seed in (2, 3)] + [run("pg", 0.9, seed, HIGH) for seed in (2, 3)]
    found = at_own_rate(runs, [1])["1"]
    assert found["mean"] == pytest.approx((0.1 + 0.5 + 0.5) / 3)
    assert found["rates"] == [1e-5, 1e-3]


def test_a_summary_counts_collapses_by_objective_and_by_stress():
    grid = Grid(("pg", "cpgd"), (1e-5, 1e-3), (1,), (1,))
    results = [
        result("pg", 1, LOW, 0.7),
        result("pg", 1, HIGH, 0.1),
        result("cpgd", 1, LOW, 0.6),
        result("cpgd", 1, HIGH, 0.5),
    ]
    found = summarise(grid, results)
    assert found["ranking"] == ["cpgd", "pg"]
    interval = pytest.approx([0.09453, 0.90547], abs=1e-5)  # Wilson, 1 of 2
    assert found["methods"]["pg"]["collapse"] == {
        "count": 1, "total": 2, "rate": 0.5, "interval": interval, "reasons": {"accuracy": 1}
    }  # fmt: skip
    # From 0.2 before training only PG's run at the high rate ended lower.
    below = {name: found["methods"][name]["below_start"]["count"] for name in grid.methods}
    assert below == {"pg": 1, "cpgd": 0}
    assert found["stresses"]["1e-3 × 1"]["count"] == 1
    assert found["runs"] == {
        "planned": 4, "done": 4, "collapsed": 1, "seconds": 4.0, "cpu_seconds": 4.0, "codes": ["code"]
    }  # fmt: skip
    # CPGD minus PG: −0.1 and +0.4.
    assert found["beside_cpgd"] == [
        {"method": "pg", "mean": pytest.approx(0.15), "low": -1.0, "high": 1.0, "n": 1}
    ]
    # At the low rate PG ended higher: that is reported.
    (ahead,) = found["ahead_of_cpgd"]
    assert (ahead["method"], ahead["rate"], ahead["mean"]) == ("pg", 1e-5, pytest.approx(0.1))


def test_a_summary_of_half_a_study_has_gaps_and_no_errors():
    found = summarise(Grid(), [result("pg", 1, Stress(2e-5, 1), 0.7)])
    assert found["ranking"] == ["pg"]
    assert found["methods"]["cpgd"]["collapse"]["rate"] is None
    assert found["methods"]["cpgd"]["final"]["mean"] is None
