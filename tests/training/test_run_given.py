"""Runs with early answers and empty thoughts: resumed, on two processes, refused where they make no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import UserError
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
PLAIN = ["evaluation.after=false", "data.eval=null"]
# At the test's 1e-3 ratios reach 12, which enlarges the rounding of sums in another order.
SLOW = "training.learning_rate=1e-4"
CASES = {
    "early": [*PLAIN, SLOW, "algorithm.recipe=brpo", "algorithm.early_answers={budgets: [1, 3], answers: 2}"],
    "empty": [*PLAIN, SLOW, "algorithm.recipe=bvpo", "algorithm.empty_thought={max_new_tokens: 4}"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_straight_one(case: str, yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    options = CASES[case]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    trainer_jobs.run(yaml, [*options, "training.iterations=1"])
    trainer_jobs.run(yaml, options, resume=True)
    rows = read_rows(tmp_path / "one")
    assert read_rows(tmp_path / "run") == rows
    assert any(row["optimizer/grad_norm"] > 0 for row in rows)
    if case == "early":
        assert all(row["early/tokens"] > 0 for row in rows)
        assert all(row["early/reached_1"] >= row["early/reached_3"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_results_of_one(
    case: str, yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    trainer_jobs.run(yaml, [*CASES[case], f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, CASES[case]) == [0, 0]
    for found, expected in zip(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_early_answers_that_nothing_learns_from_change_no_step(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    trainer_jobs.run(yaml, [*PLAIN, f"output={tmp_path / 'one'}"])
    trainer_jobs.run(yaml, [*PLAIN, "algorithm.early_answers={}"])
    more = {"tokens/sampled", *(f"early/{name}_{b}" for name in ("accuracy", "reached") for b in (2, 4, 6))}
    for found, expected in zip(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"), strict=True):
        assert found["tokens/sampled"] - found.pop("early/tokens") == expected["tokens/sampled"]
        assert {name: value for name, value in found.items() if name not in more} == {
            name: value for name, value in expected.items() if name not in more
        }


@pytest.mark.parametrize(
    ("recipe", "option", "words"),
    [
        ("bvpo", "rollout.completions=3", "take an even number"),
        ("bvpo", "algorithm.early_answers={}", "a thought that is empty"),
        ("bvpo", "algorithm.noisy={}", "two pictures"),
        ("brpo", "rollout.environment={name: plain}", "several turns"),
        ("hpt", "algorithm.early_answers={budgets: [4]}", "completions are from elsewhere"),
        ("aepo", "algorithm.early_answers={budgets: [4]}", "completions are from elsewhere"),
        ("brpo", "algorithm.early_answers={budgets: [4, 8]}", r"must be below rollout.max_new_tokens=8"),
        ("brpo", "algorithm.early_answers={budgets: [4, 4]}", "rising numbers"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused_by_name(
    yaml: Path, recipe: str, option: str, words: str
) -> None:
    with pytest.raises(UserError) as raised:
        trainer_jobs.run(yaml, [*PLAIN, f"algorithm.recipe={recipe}", option])
    assert words in str(raised.value)
    assert "algorithm." in str(raised.value)
