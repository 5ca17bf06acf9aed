"""Guard on a study's runs: kinds of runs, alarms before the loss, and rescued runs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from mm_cpgd.errors import UserError
from mm_cpgd.study import run as running
from mm_cpgd.study.grid import Stress, Trial
from mm_cpgd.study.guard import (
    RERUN_FOLDER,
    Rescue,
    accuracy_at_end,
    largest_fall,
    replay_guard,
    report_guard,
    rescues,
    run_guarded,
    summarise_guard,
)
from mm_cpgd.study.results import write_run
from mm_cpgd.study.run import report_study
from tests.fakes.study import FALLING, GUARD_GRID, HIGH, LOW, RISING, fill_for_guard, guarded_run


@pytest.mark.parametrize(
    ("accuracies", "kind"),
    [
        (RISING, "healthy"),
        ((0.2, 0.9, 0.81, 0.9), "healthy"),
        ((0.2, 0.9, 0.7, 0.9), "declined"),
        (FALLING, "collapsed"),
    ],
)
def test_kinds_of_runs_follow_from_their_falls(accuracies, kind):
    assert replay_guard(guarded_run(accuracies), 8).kind == kind


def test_the_largest_fall_is_below_the_best_before():
    assert largest_fall(guarded_run((0.5, 0.9, 0.4, 0.8)).rows) == pytest.approx(0.5)


def test_an_alarm_before_the_loss_has_a_lead():
    found = replay_guard(guarded_run(FALLING, drift={3: 5.0}), 8)
    assert (found.alarm, found.signal, found.lost, found.lead) == (3, "drift_extreme", 12, 9)


def test_an_alarm_at_the_loss_itself_does_not_count():
    summary = summarise_guard([replay_guard(guarded_run(FALLING, drift={12: 5.0}), 8)], [])
    # The fall from 80 to 50 of 100 is seen at 8, the extreme drift at 12 is no longer the first alarm.
    assert summary["noticed"]["count"] == 1
    late = guarded_run((0.2, 0.8, 0.8, 0.1), drift={12: 5.0})
    assert replay_guard(late, 8).lead == 0
    assert summarise_guard([replay_guard(late, 8)], [])["noticed"]["count"] == 0


def test_a_diverged_run_is_lost_at_its_last_iteration():
    run = guarded_run(RISING, diverged="five steps were not finite")
    assert (replay_guard(run, 8).kind, replay_guard(run, 8).lost) == ("collapsed", 12)
    assert accuracy_at_end(run) == 0.0


@pytest.mark.parametrize(
    ("back", "accuracy"),
    [({}, 0.1), ({12: 4}, 0.8), ({12: 6}, 0.8), ({10: 4}, 0.1), ({12: 0}, 0.2), ({10: 4, 12: 10}, 0.8)],
)
def test_a_rollback_at_the_end_yields_the_accuracy_of_the_snapshot(back, accuracy):
    assert accuracy_at_end(guarded_run(FALLING, back=back)) == accuracy


@pytest.mark.parametrize(("end", "is_rescued"), [(0.9, True), (0.85, True), (0.84, False)])
def test_a_rescued_run_ends_within_five_points_of_the_best_run_without_collapse(end, is_rescued):
    best, lower = guarded_run(RISING, stress=LOW), guarded_run((0.2, 0.3, 0.4, 0.5), stress=Stress(6e-5, 1))
    of_other_method = guarded_run((0.2, 0.9, 0.9, 1.0), "cpgd", LOW)
    of_other_seed = guarded_run((0.2, 0.9, 0.9, 1.0), stress=LOW, seed=2)
    rerun = guarded_run((0.2, 0.3, 0.8, end), back={5: 0})
    (found,) = rescues([best, lower, of_other_method, of_other_seed, guarded_run(FALLING)], [rerun])
    assert found == Rescue(rerun.trial, 0.9, 0.1, end, 1)
    assert found.is_rescued == is_rescued


def test_a_rerun_without_a_run_to_compare_with_is_left_out():
    assert rescues([guarded_run(FALLING)], [guarded_run(RISING)]) == []


def test_shares_are_of_their_kind_of_run():
    runs = [
        replay_guard(run, 8)
        for run in (
            guarded_run(RISING),
            guarded_run(RISING, drift={3: 5.0}),
            guarded_run((0.2, 0.9, 0.7, 0.9)),
            guarded_run(FALLING, drift={3: 5.0}),
            guarded_run(FALLING, drift={2: 5.0}),
        )
    ]
    found = summarise_guard(runs, [Rescue(runs[3].trial, 0.9, 0.1, 0.9, 1)])
    interval = pytest.approx([0.09453, 0.90547], abs=1e-5)  # Wilson, 1 of 2
    assert found["false_alarms"] == {"count": 1, "total": 2, "rate": 0.5, "interval": interval}
    assert (found["declined"]["total"], found["noticed"]["count"], found["noticed"]["total"]) == (1, 2, 2)
    assert found["lead"] == {"median": 9.5, "least": 9, "most": 10}
    extreme = next(sign for sign in found["signs"] if sign["name"] == "drift_extreme")
    assert extreme == {
        "name": "drift_extreme", "acts": True, "before": 2, "first": 2, "lead": 9.5, "healthy": 1
    }  # fmt: skip
    # The fall from 80 to 50 of 100 comes later, so it is not the first signal.
    fall = next(sign for sign in found["signs"] if sign["name"] == "held_out_fall")
    assert (fall["before"], fall["first"], fall["lead"]) == (2, 0, 4)
    assert (found["rescued"]["count"], found["rescues"][0]["trial"]) == (1, "pg-lr2e-4-u1-s1")


def test_only_collapsed_runs_of_the_requested_seeds_are_rerun_with_rollback(tmp_path, monkeypatch):
    fill_for_guard(tmp_path)
    requested = []

    def pool(trials, folder, changes, *others):
        requested.append((list(trials), folder, changes))
        return {}

    monkeypatch.setattr(running, "run_all", pool)
    run_guarded(tmp_path, (2,), ["guard.settle=4"], 1, Console(quiet=True))
    trials, folder, changes = requested[0]
    assert set(trials) == {Trial(name, HIGH, 2) for name in GUARD_GRID.methods}
    assert folder == tmp_path / RERUN_FOLDER
    assert changes == ("guard.action=rollback", "guard.settle=4")


def test_the_report_includes_the_reruns(tmp_path):
    fill_for_guard(tmp_path)
    write_run(tmp_path / RERUN_FOLDER, guarded_run((0.2, 0.6, 0.8, 0.88), "cpgd", HIGH, 2))
    summary = report_guard(tmp_path)
    assert (summary["rescued"]["count"], summary["rescued"]["total"]) == (1, 1)
    assert json.loads((tmp_path / running.GUARD_FILE).read_text()) == summary


def test_a_report_of_a_study_without_runs_names_the_command_that_runs_them(tmp_path):
    (tmp_path / running.GRID_FILE).write_text(json.dumps(replace(GUARD_GRID, seeds=(3,)).as_dict()))
    with pytest.raises(UserError, match="mm-cpgd study stability"):
        report_guard(tmp_path)


def test_the_page_has_a_section_on_the_guard_once_there_is_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr("mm_cpgd.study.page.draw_plots", lambda *_: [f"{i}.png" for i in range(7)])
    fill_for_guard(tmp_path)
    assert "Alarms and rescues of the guard" not in report_study(tmp_path).read_text()
    write_run(tmp_path / RERUN_FOLDER, guarded_run((0.2, 0.6, 0.8, 0.88), "cpgd", HIGH, 2))
    report_guard(tmp_path)
    text = report_study(tmp_path).read_text()
    assert "| collapsing runs rescued | 1/1 = 100 % (21–100) |" in text
    assert "| 2e-4 × 1 | 1 of 1 | 10 | 88 | 90 | 0.0 |" in text
