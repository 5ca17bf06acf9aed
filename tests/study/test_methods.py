"""Study of methods: accuracy at equal tokens, paired differences, choice of rates, resuming, tables."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from mm_cpgd.errors import UserError
from mm_cpgd.study import run as running
from mm_cpgd.study.grid import Grid, Stress, Trial, config_of
from mm_cpgd.study.methods import accuracy_at, run_methods, summarise_methods
from mm_cpgd.study.methods_page import MARKS, write_methods
from mm_cpgd.study.results import StudyRun, key_of, run_file, write_run

RATES = (2e-5, 2e-4)
GRID = Grid(("grpo", "dapo", "grpo@ahead_2"), RATES, (4,), (1, 2, 3))
BASE = {"grpo": 0.6, "dapo": 0.8, "grpo@ahead_2": 0.5}


def run(trial, accuracies, tokens, folder=None, diverged=None) -> StudyRun:
    """A run that samples as many tokens each iteration, evaluated after each."""
    rows = [
        {"iteration": at, "eval/accuracy": accuracy, "eval/format": 1.0}
        | ({"tokens/sampled": tokens} if at else {})
        for at, accuracy in enumerate(accuracies)
    ]
    key = key_of(config_of(trial, folder)) if folder else "key"
    return StudyRun(trial, key, "code", diverged, len(accuracies) - 1, 9.0, 8.0, rows)


def made_up(trial: Trial, folder=None) -> StudyRun:
    """``dapo`` samples twice as many tokens; at the higher rate everything ends 10 points lower."""
    final = BASE[trial.method] + 0.01 * trial.seed - 0.1 * (trial.stress.rate == RATES[1])
    return run(trial, (0.2, 0.4, final), 200.0 if trial.method == "dapo" else 100.0, folder)


def test_accuracy_at_a_number_of_tokens():
    one = run(Trial("grpo", Stress(2e-5, 4), 1), (0.2, 0.4, 0.8), 100.0)
    assert accuracy_at(one, 0.0) == (pytest.approx(0.2), False)
    assert accuracy_at(one, 150.0) == (pytest.approx(0.6), False)
    assert accuracy_at(one, 200.0) == (pytest.approx(0.8), False)
    assert accuracy_at(one, 300.0) == (pytest.approx(0.8), True)


def test_a_run_that_ended_early_has_no_accuracy_from_there():
    one = run(Trial("grpo", Stress(2e-5, 4), 1), (0.2, 0.4), 100.0, diverged="not finite")
    assert accuracy_at(one, 50.0) == (pytest.approx(0.3), False)
    assert accuracy_at(one, 150.0) == (0.0, True)


def test_the_summary_compares_at_equal_iterations_and_at_equal_tokens():
    found = summarise_methods(GRID, [made_up(trial) for trial in GRID.trials()])
    dapo, ahead = found["methods"]["dapo"], found["methods"]["grpo@ahead_2"]
    assert found["budget"] == 200.0
    assert dapo["iterations"]["accuracy"]["mean"] == pytest.approx(0.82)
    assert dapo["iterations"]["beside"]["mean"] == pytest.approx(0.2)
    # Each difference is the same for every seed: pairing by seed leaves no interval.
    assert dapo["iterations"]["beside"]["low"] == pytest.approx(0.2)
    assert dapo["iterations"]["rates"] == [RATES[0]]
    # After 200 tokens it has done one of its two iterations.
    assert dapo["tokens"]["accuracy"]["mean"] == pytest.approx(0.4)
    assert dapo["tokens"]["beside"]["mean"] == pytest.approx(-0.22)
    assert ahead["against"] == "grpo"
    assert ahead["iterations"]["beside"]["mean"] == pytest.approx(-0.1)
    assert dapo["sampled"] == 400.0
    assert dapo["collapse"]["count"] == 0


def test_the_rate_of_a_seed_is_chosen_on_the_others():
    grid = Grid(("grpo",), RATES, (4,), (1, 2, 3))
    # Only seed 1 is better at the higher rate, by so much that it decides for the others.
    finals = {(1, RATES[0]): 0.1, (1, RATES[1]): 0.9, (2, RATES[0]): 0.5, (2, RATES[1]): 0.4,
              (3, RATES[0]): 0.5, (3, RATES[1]): 0.4}  # fmt: skip
    runs = [run(one, (0.1, finals[one.seed, one.stress.rate]), 10.0) for one in grid.trials()]
    found = summarise_methods(grid, runs)["methods"]["grpo"]["iterations"]
    assert found["accuracy"]["mean"] == pytest.approx((0.1 + 0.4 + 0.4) / 3)
    assert found["rates"] == list(RATES)


def test_a_single_rate_needs_no_other_seed():
    grid = Grid(("grpo",), RATES[:1], (4,), (1,))
    found = summarise_methods(grid, [made_up(one) for one in grid.trials()])["methods"]["grpo"]
    assert found["iterations"]["accuracy"]["mean"] == pytest.approx(0.61)


def test_a_study_resumes_and_writes_results_and_tables(tmp_path, monkeypatch):
    trials = GRID.trials()
    running.prepare_folder(tmp_path, GRID)
    for trial in trials:
        write_run(tmp_path, made_up(trial, tmp_path))
    run_file(tmp_path, trials[4]).unlink()

    def pool(missing, folder, *others):
        assert missing == [trials[4]]
        write_run(folder, made_up(trials[4], folder))
        return {}

    monkeypatch.setattr(running, "run_all", pool)
    text = run_methods(GRID, tmp_path, 1, Console(quiet=True)).read_text(encoding="utf-8")
    assert "18 of 18 runs" in text
    assert "| `dapo` | 82 (80–84) | +20.0 (+20.0 to +20.0) | `grpo` | 2e-5 | 400 | 8 | 0/6" in text
    assert "| `dapo` | 40 (40–40) | −22.0 (−24.5 to −19.5) | `grpo` |" in text
    assert "| `grpo`, 2 batches ahead | 52 (50–54) | −10.0 (−10.0 to −10.0) | `grpo` |" in text
    assert "### Stale rollouts, equal iterations" in text
    assert "### Wrong rewards" not in text
    assert json.loads((tmp_path / "methods.json").read_text())["runs"]["done"] == 18


def test_tables_replace_those_between_the_marks_of_a_page(tmp_path):
    summary = summarise_methods(GRID, [made_up(trial) for trial in GRID.trials()])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n", encoding="utf-8")
    for _ in range(2):
        write_methods(page, summary)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{MARKS[0]}\n")
    assert text.endswith(f"{MARKS[1]}\nafter\n")
    assert "old" not in text
    assert text.count("### Equal tokens") == 1
    (tmp_path / "other.md").write_text("mine")
    with pytest.raises(UserError, match="has no place for the tables"):
        write_methods(tmp_path / "other.md", summary)
