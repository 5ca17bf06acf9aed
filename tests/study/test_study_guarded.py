"""The guard on a study's runs: kinds of runs, alarms before the loss, and what counts as rescued."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mm_cpgd.cli.study import study_app
from mm_cpgd.errors import UserError
from mm_cpgd.study import run as running
from mm_cpgd.study.grid import Grid, Stress, Trial
from mm_cpgd.study.guard import (
    FOLDER,
    Rescue,
    accuracy_at_end,
    largest_fall,
    report_guard,
    rescues,
    run_guarded,
    summarise_guard,
    watched,
)
from mm_cpgd.study.results import Result, write_result
from mm_cpgd.study.run import report_study

GRID = Grid(("pg", "cpgd"), (2e-5, 2e-4), (1,), (1, 2))
CALM, HARD = Stress(2e-5, 1), Stress(2e-4, 1)
RISING, FALLING = (0.2, 0.6, 0.8, 0.9), (0.2, 0.8, 0.5, 0.1)


def result(
    accuracies: tuple[float, ...],
    method: str = "pg",
    stress: Stress = HARD,
    seed: int = 1,
    drift: dict[int, float] | None = None,
    back: dict[int, int] | None = None,
    diverged: str | None = None,
) -> Result:
    """A run of twelve iterations, evaluated every fourth."""
    rows = []
    for at in range(13):
        row: dict[str, float] = {"iteration": at}
        if at % 4 == 0:
            row |= {"eval/accuracy": accuracies[at // 4], "eval/format": 1.0, "eval/n": 100.0}
        if at:
            row["policy/drift"] = (drift or {}).get(at, 0.001)
        if back and at in back:
            row["guard/rolled_back_to"] = back[at]
        rows.append(row)
    return Result(Trial(method, stress, seed), "key", "code", diverged, 12, 1.0, 1.0, rows)


def share(successes: int, trials: int) -> tuple[float, float]:
    return (successes / 10, trials / 10)


def fill(folder) -> None:
    """Of every objective and seed, the calm run rises and the hard one falls."""
    folder.mkdir(exist_ok=True)
    (folder / running.GRID).write_text(json.dumps(GRID.as_dict()))
    for trial in GRID.trials():
        run = result(RISING if trial.stress == CALM else FALLING, trial.method, trial.stress, trial.seed)
        write_result(folder, run)


@pytest.mark.parametrize(
    ("accuracies", "kind"),
    [
        (RISING, "healthy"),
        ((0.2, 0.9, 0.81, 0.9), "healthy"),
        ((0.2, 0.9, 0.7, 0.9), "declined"),
        (FALLING, "collapsed"),
    ],
)
def test_a_run_is_healthy_if_it_never_fell_far(accuracies, kind):
    assert watched(result(accuracies), 8).kind == kind


def test_the_largest_fall_is_below_the_best_before():
    assert largest_fall(result((0.5, 0.9, 0.4, 0.8)).rows) == pytest.approx(0.5)


def test_an_alarm_before_the_loss_has_a_lead():
    found = watched(result(FALLING, drift={3: 5.0}), 8)
    assert (found.alarm, found.sign, found.lost, found.lead) == (3, "drift_extreme", 12, 9)


def test_an_alarm_at_the_loss_itself_is_too_late():
    summary = summarise_guard([watched(result(FALLING, drift={12: 5.0}), 8)], [], share)
    # The fall from 80 to 50 of 100 is seen at 8, the extreme drift at 12 is no longer the first alarm.
    assert summary["noticed"]["count"] == 1
    late = result((0.2, 0.8, 0.8, 0.1), drift={12: 5.0})
    assert watched(late, 8).lead == 0
    assert summarise_guard([watched(late, 8)], [], share)["noticed"]["count"] == 0


def test_a_run_whose_numbers_were_not_finite_is_lost_where_it_ended():
    run = result(RISING, diverged="five steps were not finite")
    assert (watched(run, 8).kind, watched(run, 8).lost) == ("collapsed", 12)
    assert accuracy_at_end(run) == 0.0


@pytest.mark.parametrize(
    ("back", "accuracy"),
    [({}, 0.1), ({12: 4}, 0.8), ({12: 6}, 0.8), ({10: 4}, 0.1), ({12: 0}, 0.2), ({10: 4, 12: 10}, 0.8)],
)
def test_who_went_back_at_the_end_has_the_accuracy_of_the_copy(back, accuracy):
    assert accuracy_at_end(result(FALLING, back=back)) == accuracy


@pytest.mark.parametrize(("end", "is_rescued"), [(0.9, True), (0.85, True), (0.84, False)])
def test_rescued_is_who_ends_within_five_points_of_the_best_calm_run(end, is_rescued):
    calm, better = result(RISING, stress=CALM), result((0.2, 0.3, 0.4, 0.5), stress=Stress(6e-5, 1))
    others = result((0.2, 0.9, 0.9, 1.0), "cpgd", CALM), result((0.2, 0.9, 0.9, 1.0), stress=CALM, seed=2)
    again = result((0.2, 0.3, 0.8, end), back={5: 0})
    (found,) = rescues([calm, better, *others, result(FALLING)], [again])
    assert found == Rescue(again.trial, 0.9, 0.1, end, 1)
    assert found.is_rescued == is_rescued


def test_a_run_without_a_calm_one_cannot_be_judged():
    assert rescues([result(FALLING)], [result(RISING)]) == []


def test_shares_are_of_their_kind_of_run():
    runs = [
        watched(run, 8)
        for run in (
            result(RISING),
            result(RISING, drift={3: 5.0}),
            result((0.2, 0.9, 0.7, 0.9)),
            result(FALLING, drift={3: 5.0}),
            result(FALLING, drift={2: 5.0}),
        )
    ]
    found = summarise_guard(runs, [Rescue(runs[3].trial, 0.9, 0.1, 0.9, 1)], share)
    assert found["false_alarms"] == {"count": 1, "total": 2, "rate": 0.5, "interval": [0.1, 0.2]}
    assert (found["declined"]["total"], found["noticed"]["count"], found["noticed"]["total"]) == (1, 2, 2)
    assert found["lead"] == {"median": 9.5, "least": 9, "most": 10}
    extreme = next(sign for sign in found["signs"] if sign["name"] == "drift_extreme")
    assert extreme == {
        "name": "drift_extreme", "acts": True, "before": 2, "first": 2, "lead": 9.5, "healthy": 1
    }  # fmt: skip
    # The fall from 80 to 50 of 100 comes later, and is no first sign.
    fall = next(sign for sign in found["signs"] if sign["name"] == "held_out_fall")
    assert (fall["before"], fall["first"], fall["lead"]) == (2, 0, 4)
    assert (found["rescued"]["count"], found["rescues"][0]["trial"]) == (1, "pg-lr2e-4-u1-s1")


def test_only_collapsed_runs_of_the_asked_seeds_are_done_again_with_rollback(tmp_path, monkeypatch):
    fill(tmp_path)
    asked = []

    def pool(trials, folder, changes, *others):
        asked.append((list(trials), folder, changes))
        return {}

    monkeypatch.setattr(running, "run_all", pool)
    run_guarded(tmp_path, (2,), ["guard.settle=4"], 1, None, Console(quiet=True))
    trials, folder, changes = asked[0]
    assert set(trials) == {Trial(name, HARD, 2) for name in GRID.methods}
    assert folder == tmp_path / FOLDER
    assert changes == ("guard.action=rollback", "guard.settle=4")


def test_the_report_takes_in_what_was_done_again(tmp_path):
    fill(tmp_path)
    write_result(tmp_path / FOLDER, result((0.2, 0.6, 0.8, 0.88), "cpgd", HARD, 2))
    summary = report_guard(tmp_path, share)
    assert (summary["rescued"]["count"], summary["rescued"]["total"]) == (1, 1)
    assert json.loads((tmp_path / running.GUARD).read_text()) == summary


def test_a_report_of_a_study_without_runs_says_how_to_make_them(tmp_path):
    (tmp_path / running.GRID).write_text(json.dumps(replace(GRID, seeds=(3,)).as_dict()))
    with pytest.raises(UserError, match="mm-cpgd study stability"):
        report_guard(tmp_path, share)


def test_the_command_prints_the_shares(tmp_path):
    fill(tmp_path)
    answer = CliRunner().invoke(study_app, ["guard", str(tmp_path), "--no-again"])
    assert answer.exit_code == 0
    assert "0/4 = 0 %" in answer.output
    assert "collapsing runs with an alarm before the loss" in answer.output


def test_the_page_tells_of_the_guard_once_it_was_tried(tmp_path, monkeypatch):
    monkeypatch.setattr("mm_cpgd.study.page.draw_pictures", lambda *_: [f"{i}.png" for i in range(7)])
    fill(tmp_path)
    assert "What the guard sees" not in report_study(tmp_path, share).read_text()
    write_result(tmp_path / FOLDER, result((0.2, 0.6, 0.8, 0.88), "cpgd", HARD, 2))
    report_guard(tmp_path, share)
    text = report_study(tmp_path, share).read_text()
    assert "| collapsing runs rescued | 1/1 = 100 % (10–10) |" in text
    assert "| 2e-4 × 1 | 1 of 1 | 10 | 88 | 90 | 0.0 |" in text
