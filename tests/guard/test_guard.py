"""Decisions of the guard after an iteration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.config.schema import GuardConfig
from mm_cpgd.guard import Guard
from mm_cpgd.guard.guard import Review


def guard(action: str, **options: Any) -> Guard:
    config = GuardConfig.model_validate({"action": action, "settle": 0, **options})
    return Guard(config, completions=8)


def row(iteration: int, drift: float) -> dict[str, Any]:
    return {"iteration": iteration, "policy/drift": drift}


def after(guard: Guard, drifts: list[float], trusted: int | None = 0) -> Review:
    """Review one row per drift; return the last review."""
    reviews = [guard.review(row(i + 1, drift), trusted) for i, drift in enumerate(drifts)]
    return reviews[-1]


def test_warn_reports_the_alarm_and_does_nothing() -> None:
    review = after(guard("warn"), [3.0])
    assert len(review.lines) == 1
    assert "drift_extreme" in review.lines[0]
    assert (review.roll_back, review.stop, review.healthy) == (False, False, False)
    assert review.metrics == {"guard/alarms": 1.0, "guard/drift_extreme": 3.0}


def test_an_iteration_without_a_near_signal_is_healthy() -> None:
    review = after(guard("warn"), [0.01, 0.01, 0.01])
    assert review.healthy
    assert review.metrics == {"guard/alarms": 0.0}


def test_the_first_iterations_are_not_healthy_nor_those_after_a_rollback_to_the_start() -> None:
    rollback = guard("rollback", settle=3)
    healthy = [rollback.review(row(i + 1, drift), 0).healthy for i, drift in enumerate([0.01] * 4 + [3.0])]
    assert healthy == [False, False, True, True, False]
    assert [rollback.review(row(i + 6, 0.01), 0).healthy for i in range(3)] == [False, False, True]


def test_an_iteration_near_an_alarm_is_not_healthy() -> None:
    review = after(guard("rollback"), [0.01, 0.04, 0.04])  # four fifths of the way to drift_high
    assert review.metrics == {"guard/alarms": 0.0}
    assert not review.healthy


def test_with_regular_evaluations_only_evaluated_policies_are_healthy() -> None:
    rollback = guard("rollback")
    accuracies = [0.5, None, 0.8, None, 0.75, None, *[None] * 16]
    reviews = [
        rollback.review({**row(i, 0.01), "eval/accuracy": accuracy, "eval/n": 1000.0}, 0)
        for i, accuracy in enumerate(accuracies)
    ]
    # Iteration 0 is before training; 4 is 2.7 standard deviations below its best; from 20 on the last
    # evaluation is more than 16 iterations old.
    assert [i for i, review in enumerate(reviews) if review.healthy] == [0, 1, 2, 20, 21]
    assert [i for i, review in enumerate(reviews) if review.verified] == [0, 2]


@pytest.mark.parametrize(("last", "healthy"), [(1.1, True), (0.95, False)])
def test_a_first_evaluation_after_the_reward_has_fallen_is_not_healthy(last: float, healthy: bool) -> None:
    # The difference has a noise of 0.4·√(4.5/128) = 0.075: the falls are 1.3 σ and 3.3 σ.
    rollback = guard("rollback")
    noise = {"reward/std": 0.4, "completion/length_mean": 1.0, "tokens/sampled": 128.0}
    rows = [
        {**row(i + 1, 0.01), **noise, "reward/mean": reward}
        for i, reward in enumerate([1.2, 1.2, 1.2, last, last])
    ]
    rows[-1]["eval/accuracy"] = 0.4
    assert [rollback.review(one, 0).healthy for one in rows] == [True, True, True, last == 1.1, healthy]


def test_action_off_reports_nothing() -> None:
    assert after(guard("off"), [3.0, 3.0]) == Review()


def test_a_run_resumed_after_a_stop_is_tested_by_new_rows_only() -> None:
    stopping = guard("stop")
    assert after(stopping, [0.01, 0.12, 0.12]).stop
    assert not stopping.review(row(4, 0.12), None).stop
    assert stopping.review(row(5, 0.12), None).stop


def test_after_the_last_allowed_rollback_the_run_stops() -> None:
    rollback = guard("rollback", max_rollbacks=2, step_factor=0.5, target_drift=0, alpha_factor=3.0)
    first = rollback.review(row(1, 3.0), 0)
    assert first.roll_back
    assert first.metrics["guard/rolled_back_to"] == 0.0
    second = rollback.review(row(2, 3.0), 0)
    assert second.metrics["guard/step_scale"] == 0.25
    assert second.metrics["guard/alpha_scale"] == 9.0
    assert rollback.review(row(3, 3.0), 0).stop


@pytest.mark.parametrize(
    ("drift", "factor"),
    [
        (3.0, 0.1),  # √(0.03 / 3)
        (0.48, 0.25),  # √(0.03 / 0.48)
        (0.12, 0.3),  # √(0.03 / 0.12) = 0.5 is more than step_factor
        (1e6, 0.01),  # never below
    ],
)
def test_a_larger_drift_gives_a_smaller_step(drift: float, factor: float) -> None:
    rollback = guard("rollback", step_factor=0.3, target_drift=0.03)
    reviews = [rollback.review(row(i + 1, one), 0) for i, one in enumerate([0.01, drift, 0.1])]
    review = next(review for review in reviews if review.roll_back)
    assert review.step_factor == pytest.approx(factor)
    assert rollback.step_scale == review.metrics["guard/step_scale"] == review.step_factor


def test_the_largest_drift_since_the_snapshot_counts() -> None:
    rollback = guard("rollback", target_drift=0.001)
    # The drift of iteration 1 came before the snapshot.
    review = after(rollback, [0.5, 0.01, 0.16, 0.07], trusted=2)
    assert review.step_factor == pytest.approx((0.001 / 0.16) ** 0.5)


def test_without_a_drift_only_the_step_factor_applies() -> None:
    rollback = guard("rollback", step_factor=0.3)
    for i in range(2):
        review = rollback.review({"iteration": i + 1, "optimizer/skipped": 2.0}, 0)
    assert review.step_factor == 0.3


def test_without_a_snapshot_the_run_stops() -> None:
    assert after(guard("rollback"), [0.01, 3.0], trusted=None).stop


def test_rows_discarded_by_a_rollback_raise_no_further_alarm() -> None:
    rollback = guard("rollback")
    after(rollback, [0.01, 0.12, 0.12], trusted=1)  # back to iteration 1: the row of iteration 2 is discarded
    assert rollback.rollbacks == 1
    assert not rollback.review(row(4, 0.12), 1).roll_back
    assert rollback.review(row(5, 0.12), 1).roll_back


def test_a_guard_from_a_checkpoint_makes_the_same_decisions(tmp_path: Path) -> None:
    drifts = [0.01, 0.12, 0.12, 0.01, 0.01, 0.12]
    one = guard("rollback")
    after(one, drifts, trusted=1)
    save_state(tmp_path / "guard.safetensors", one.state_dict())
    other = guard("rollback")
    other.load_state_dict(load_state(tmp_path / "guard.safetensors"))
    expected = one.review(row(7, 0.12), 4)
    assert expected.roll_back
    assert other.review(row(7, 0.12), 4) == expected


def test_the_state_of_a_long_run_stays_small() -> None:
    watching = guard("warn")
    after(watching, [0.01] * 300)
    assert len(watching.state_dict()["rows"]) < 30


def test_an_ignored_signal_is_not_tested() -> None:
    ignoring = guard("stop", ignore=["drift_extreme", "drift_high"])
    assert not after(ignoring, [0.01, 3.0]).stop
