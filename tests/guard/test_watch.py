"""Alarms of a run: reported once, discarded after a rollback, one line each."""

from __future__ import annotations

from mm_cpgd.guard import SIGNALS, replay, watch
from tests.fakes.guard import rows_of


def test_a_healthy_run_raises_no_alarm() -> None:
    assert list(replay(rows_of(policy_drift=[0.01] * 40))) == []


def test_a_persistent_signal_is_reported_once() -> None:
    rows = rows_of(policy_drift=[0.01] * 5 + [0.12] * 20)
    assert [alarm.iteration for alarm in replay(rows)] == [7]


def test_after_a_rollback_the_rows_after_the_snapshot_are_discarded() -> None:
    reward = [1.2] * 6 + [0.5, 0.5] + [1.2] * 4
    rows = rows_of(reward_mean=reward)
    rows[7]["guard/rolled_back_to"] = 6.0
    assert [alarm.iteration for alarm in replay(rows) if alarm.signal.name == "reward_fall"] == [7]
    rows[8:] = rows_of(reward_mean=[0.5] * 12)[8:]
    assert [alarm.iteration for alarm in replay(rows) if alarm.signal.name == "reward_fall"] == [7, 9]


def test_every_alarm_is_one_line_with_cause_and_remedy() -> None:
    (alarm,) = watch(rows_of(policy_drift=[3.0]))
    assert alarm.line.startswith(
        "iteration 1: drift_extreme: policy/drift 3, limit 1; probably one iteration"
    )
    assert "lower training.learning_rate" in alarm.line
    assert all(
        "\n" not in part for signal in SIGNALS for part in (signal.cause, signal.remedy, str(signal.test))
    )
