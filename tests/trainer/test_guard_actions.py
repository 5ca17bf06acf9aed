"""What the guard decides, and what it goes back to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mm_cpgd.algorithms.objective import Objective, build_objective
from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.config.schema import AlgorithmConfig, GuardConfig
from mm_cpgd.errors import UserError
from mm_cpgd.guard import Guard
from mm_cpgd.guard.guard import Action, Review
from mm_cpgd.guard.rollback import put_back, take, with_alpha
from mm_cpgd.report.page import facts
from mm_cpgd.report.run_data import load_run
from mm_cpgd.tracking import MetricsLog
from mm_cpgd.training.setup import check_guard

DRIFT = {"name": "policy_drift", "alpha": 0.01}


def guard(action: Action, **options: Any) -> Guard:
    return Guard(action, completions=8, **{"settle": 0, **options})


def row(iteration: int, drift: float) -> dict[str, Any]:
    return {"iteration": iteration, "policy/drift": drift}


def after(guard: Guard, drifts: list[float], good: int | None = 0) -> Review:
    """Review one row a drift; return the last review."""
    reviews = [guard.review(row(i + 1, drift), good) for i, drift in enumerate(drifts)]
    return reviews[-1]


def objective(*regularizers: dict[str, Any]) -> Objective:
    config = AlgorithmConfig.model_validate(
        {
            "advantage": {"name": "grpo"},
            "surrogate": {"name": "ppo_clip"},
            "aggregation": {"name": "token_mean"},
            "regularizers": list(regularizers),
        }
    )
    return build_objective(config, completions=8, max_new_tokens=16)


def test_warn_says_it_and_does_nothing() -> None:
    review = after(guard("warn"), [3.0])
    assert len(review.lines) == 1
    assert "drift_extreme" in review.lines[0]
    assert (review.go_back, review.stop, review.calm) == (False, False, False)
    assert review.metrics == {"guard/alarms": 1.0, "guard/drift_extreme": 3.0}


def test_a_calm_iteration_is_worth_a_copy() -> None:
    review = after(guard("warn"), [0.01, 0.01, 0.01])
    assert review.calm
    assert review.metrics == {"guard/alarms": 0.0}


def test_the_first_iterations_are_not_worth_a_copy_nor_those_after_going_back_to_the_start() -> None:
    rolling = guard("rollback", settle=3)
    calm = [rolling.review(row(i + 1, drift), 0).calm for i, drift in enumerate([0.01] * 4 + [3.0])]
    assert calm == [False, False, True, True, False]
    assert [rolling.review(row(i + 6, 0.01), 0).calm for i in range(3)] == [False, False, True]


def test_an_iteration_near_an_alarm_is_not_worth_a_copy() -> None:
    review = after(guard("rollback"), [0.01, 0.04, 0.04])  # four fifths of the way to drift_high
    assert review.metrics == {"guard/alarms": 0.0}
    assert not review.calm


def test_where_the_policy_is_evaluated_only_evaluated_ones_are_worth_a_copy() -> None:
    rolling = guard("rollback")
    accuracies = [0.5, None, 0.8, None, 0.75, None, *[None] * 16]
    reviews = [
        rolling.review({**row(i, 0.01), "eval/accuracy": accuracy, "eval/n": 1000.0}, 0)
        for i, accuracy in enumerate(accuracies)
    ]
    # Iteration 0 is before training; 4 is 2.7 standard deviations below its best; from 20 on the last
    # evaluation is more than 16 iterations past.
    assert [i for i, review in enumerate(reviews) if review.calm] == [0, 1, 2, 20, 21]
    assert [i for i, review in enumerate(reviews) if review.proven] == [0, 2]


@pytest.mark.parametrize(("last", "calm"), [(1.1, True), (0.95, False)])
def test_a_first_evaluation_after_the_reward_has_fallen_is_not_worth_a_copy(last: float, calm: bool) -> None:
    # The difference has a noise of 0.4·√(4.5/128) = 0.075: the falls are 1.3 σ and 3.3 σ.
    rolling = guard("rollback")
    noise = {"reward/std": 0.4, "completion/length_mean": 1.0, "tokens/sampled": 128.0}
    rows = [
        {**row(i + 1, 0.01), **noise, "reward/mean": reward}
        for i, reward in enumerate([1.2, 1.2, 1.2, last, last])
    ]
    rows[-1]["eval/accuracy"] = 0.4
    assert [rolling.review(one, 0).calm for one in rows] == [True, True, True, last == 1.1, calm]


def test_off_says_nothing() -> None:
    assert after(guard("off"), [3.0, 3.0]) == Review()


def test_a_run_that_is_resumed_after_a_stop_is_judged_anew() -> None:
    stopping = guard("stop")
    assert after(stopping, [0.01, 0.12, 0.12]).stop
    assert not stopping.review(row(4, 0.12), None).stop
    assert stopping.review(row(5, 0.12), None).stop


def test_rollbacks_go_back_until_they_are_used_up() -> None:
    rolling = guard("rollback", max_rollbacks=2, step_factor=0.5, target_drift=0, alpha_factor=3.0)
    first = rolling.review(row(1, 3.0), 0)
    assert first.go_back
    assert first.metrics["guard/rolled_back_to"] == 0.0
    second = rolling.review(row(2, 3.0), 0)
    assert second.metrics["guard/step_scale"] == 0.25
    assert second.metrics["guard/alpha_scale"] == 9.0
    assert rolling.review(row(3, 3.0), 0).stop


@pytest.mark.parametrize(
    ("drift", "factor"),
    [
        (3.0, 0.1),  # √(0.03 / 3)
        (0.48, 0.25),  # √(0.03 / 0.48)
        (0.12, 0.3),  # √(0.03 / 0.12) = 0.5 is more than step_factor
        (1e6, 0.01),  # never below
    ],
)
def test_the_further_the_policy_drifted_the_smaller_the_step(drift: float, factor: float) -> None:
    rolling = guard("rollback", step_factor=0.3, target_drift=0.03)
    reviews = [rolling.review(row(i + 1, one), 0) for i, one in enumerate([0.01, drift, 0.1])]
    review = next(review for review in reviews if review.go_back)
    assert review.step_factor == pytest.approx(factor)
    assert rolling.step_scale == review.metrics["guard/step_scale"] == review.step_factor


def test_the_largest_drift_since_the_copy_counts() -> None:
    rolling = guard("rollback", target_drift=0.001)
    # The drift of iteration 1 came before the copy.
    review = after(rolling, [0.5, 0.01, 0.16, 0.07], good=2)
    assert review.step_factor == pytest.approx((0.001 / 0.16) ** 0.5)


def test_without_a_drift_the_step_factor_is_all_there_is() -> None:
    rolling = guard("rollback", step_factor=0.3)
    for i in range(2):
        review = rolling.review({"iteration": i + 1, "optimizer/skipped": 2.0}, 0)
    assert review.step_factor == 0.3


def test_without_a_copy_the_run_stops() -> None:
    assert after(guard("rollback"), [0.01, 3.0], good=None).stop


def test_after_a_rollback_what_was_bad_is_not_held_against_the_run() -> None:
    rolling = guard("rollback")
    after(rolling, [0.01, 0.12, 0.12], good=1)  # back to iteration 1: the row of iteration 2 is forgotten
    assert rolling.rollbacks == 1
    assert not rolling.review(row(4, 0.12), 1).go_back
    assert rolling.review(row(5, 0.12), 1).go_back


def test_a_guard_from_a_checkpoint_decides_alike(tmp_path: Path) -> None:
    drifts = [0.01, 0.12, 0.12, 0.01, 0.01, 0.12]
    one = guard("rollback")
    after(one, drifts, good=1)
    save_state(tmp_path / "guard.safetensors", one.state_dict())
    other = guard("rollback")
    other.load_state_dict(load_state(tmp_path / "guard.safetensors"))
    expected = one.review(row(7, 0.12), 4)
    assert expected.go_back
    assert other.review(row(7, 0.12), 4) == expected


def test_the_memory_of_a_long_run_stays_small() -> None:
    watching = guard("warn")
    after(watching, [0.01] * 300)
    assert len(watching.state_dict()["rows"]) < 30


def test_a_sign_that_is_ignored_is_not_looked_for() -> None:
    from mm_cpgd.training.setup import chosen_signs

    ignoring = guard("stop", signs=chosen_signs(["drift_extreme", "drift_high"]))
    assert not after(ignoring, [0.01, 3.0]).stop


def test_an_unknown_sign_is_named_with_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"no sign 'drfit'.*drift_high"):
        check_guard(GuardConfig(ignore=["drfit"]), objective())


def test_alpha_cannot_be_raised_where_there_is_none() -> None:
    check_guard(GuardConfig(alpha_factor=2), objective(DRIFT))
    with pytest.raises(UserError, match="no policy_drift"):
        check_guard(GuardConfig(alpha_factor=2), objective())


def test_alpha_is_scaled_from_what_was_composed() -> None:
    composed = objective({"name": "kl", "coefficient": 0.1}, DRIFT)
    scaled = with_alpha(composed, 4.0)
    assert [part.options.get("alpha") for part in scaled.regularizers] == [None, 0.04]
    assert [part.options.get("alpha") for part in composed.regularizers] == [None, 0.01]
    assert scaled.states is composed.states


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    """Take so many steps down a bowl."""
    for _ in range(count):
        optimizer.zero_grad()
        sum((value**2).sum() for value in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.mark.parametrize("before", [0, 3])
def test_going_back_undoes_weights_and_moments_exactly(before: int) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    steps(model, optimizer, before)
    content = take(dict(model.named_parameters()), optimizer)
    steps(model, optimizer, 2)
    expected = [value.clone() for value in model.parameters()]
    steps(model, optimizer, 5)
    put_back(content, dict(model.named_parameters()), optimizer)
    steps(model, optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected, strict=True))


def test_the_report_says_when_the_guard_alarmed_and_where_it_went_back(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"guard/alarms": 0.0})
    assert "Guard" not in dict(facts(load_run(tmp_path)))
    log.write(2, {"guard/alarms": 2.0, "guard/rolled_back_to": 1.0, "guard/always": 1.5})
    log.write(3, {"guard/alarms": 1.0})
    assert (
        dict(facts(load_run(tmp_path)))["Guard"] == "alarm in 2 of 3 iterations, first in 2; went back 2 → 1"
    )
