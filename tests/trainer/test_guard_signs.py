"""What the guard sees in rows of metrics, and what it must not see."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from mm_cpgd.guard import SIGNS, replay, watch
from mm_cpgd.guard.trend_tests import Above, Falls, History, Jumps, Rises, fall_of, trimmed

Row = dict[str, Any]
CALM = {
    "reward/mean": 1.2,
    "reward/std": 0.4,
    "reward/format": 1.0,
    "accuracy/train": 0.7,
    "groups/no_signal": 0.4,
    "completion/length_mean": 20.0,
    "completion/truncated": 0.0,
    "tokens/sampled": 20.0 * 128,
    "policy/drift": 0.01,
    "policy/clip_fraction": 0.05,
    "policy/ratio_max": 3.0,
    "policy/entropy": 0.05,
    "optimizer/grad_norm": 0.5,
    "optimizer/skipped": 0.0,
}


def rows_of(**courses: list[Any]) -> list[Row]:
    """Calm rows in which some metrics run another course; ``reward_mean`` stands for ``reward/mean``."""
    (length,) = {len(course) for course in courses.values()}
    named = {key.replace("_", "/", 1): course for key, course in courses.items()}
    return [
        {"iteration": i + 1, **CALM, **{key: course[i] for key, course in named.items()}}
        for i in range(length)
    ]


def names(rows: list[Row]) -> set[str]:
    return {alarm.sign.name for alarm in watch(rows)}


def test_a_calm_run_raises_no_alarm() -> None:
    assert list(replay(rows_of(policy_drift=[0.01] * 40))) == []


def test_high_drift_alarms_in_the_second_iteration_in_a_row() -> None:
    drift = [0.01] * 5 + [0.3, 0.01, 0.3, 0.07]
    rows = rows_of(policy_drift=drift)
    assert [(alarm.iteration, alarm.sign.name) for alarm in replay(rows)] == [(9, "drift_high")]


def test_a_drift_of_three_nats_alarms_in_the_very_first_iteration() -> None:
    assert names(rows_of(policy_drift=[3.0])) == {"drift_extreme"}


def test_a_fall_is_measured_in_deviations_of_the_noise_that_sampling_makes() -> None:
    # 128 completions, 8 a prompt, ρ = ½: worth 128/4.5 = 28.4; the variance of a row's mean is 0.4²/28.4,
    # of a mean of two rows half of it, of the difference of two such means that of a row again.
    rows = rows_of(reward_mean=[1.0, 1.2, 1.2, 0.9, 0.7])
    fall = fall_of(History(rows, completions=8), "reward/mean", over=2)
    assert fall is not None
    assert fall.sigmas == pytest.approx(0.4 / math.sqrt(0.16 * 4.5 / 128))
    assert fall.share == pytest.approx(0.4 / 1.2)


def test_the_best_of_many_is_expected_to_be_high_by_chance() -> None:
    # 12 rows before the last two make 11 windows of 2, worth 5.5 independent ones.
    rows = rows_of(reward_mean=[1.2] * 12 + [0.9, 0.7])
    fall = fall_of(History(rows, completions=8), "reward/mean", over=2)
    assert fall is not None
    assert fall.sigmas == pytest.approx(0.4 / math.sqrt(0.16 * 4.5 / 128) - math.sqrt(math.log(5.5)))


def test_the_same_fall_in_a_small_sample_is_noise() -> None:
    reward = [1.2] * 6 + [0.85, 0.85]
    assert "reward_fall" in names(rows_of(reward_mean=reward))
    few = rows_of(reward_mean=reward, tokens_sampled=[20.0 * 32] * 8)
    assert "reward_fall" not in names(few)


def test_a_certain_but_small_fall_is_no_alarm() -> None:
    rows = rows_of(reward_mean=[1.2] * 6 + [1.1, 1.1], tokens_sampled=[20.0 * 1e6] * 8)
    assert names(rows) == set()


def test_a_share_that_was_perfect_is_not_taken_for_certain() -> None:
    # 4 completions of one prompt: one wrong one after all right ones is nothing.
    rows = rows_of(accuracy_train=[1.0] * 5 + [0.5, 0.5], tokens_sampled=[80.0] * 7, reward_std=[0.0] * 7)
    assert "accuracy_fall" not in names(rows)


def test_entropy_that_rises_while_the_reward_falls_alarms() -> None:
    entropy = [0.05, 0.02, 0.02, 0.06, 0.08]
    assert names(rows_of(policy_entropy=entropy, reward_mean=[1.2, 1.4, 1.4, 1.1, 0.9])) >= {"entropy_rise"}
    assert names(rows_of(policy_entropy=entropy, reward_mean=[1.2, 1.4, 1.4, 1.4, 1.4])) == set()


def test_the_format_that_is_lost_is_named() -> None:
    assert "format_fall" in names(rows_of(reward_format=[1.0] * 6 + [0.6, 0.5]))


def test_a_held_out_fall_is_judged_when_it_is_evaluated_and_never_again() -> None:
    accuracy = [0.9, None, 0.9, None, 0.4, None]
    rows = rows_of(eval_accuracy=accuracy, eval_n=[200.0] * 6)
    assert names(rows[:5]) == {"held_out_fall"}
    assert names(rows) == set()


def test_a_solved_task_raises_no_alarm() -> None:
    # Reward to its top, entropy down twentyfold, no signal and no gradient left, answers half as long again.
    steps = [i / 39 for i in range(40)]
    rows = rows_of(
        reward_mean=[0.9 + 0.6 * s for s in steps],
        accuracy_train=[0.4 + 0.6 * s for s in steps],
        reward_std=[0.5 * (1 - s) for s in steps],
        policy_entropy=[0.15 * math.exp(-3 * s) for s in steps],
        groups_no_signal=steps,
        optimizer_grad_norm=[0.9 * (1 - s) for s in steps],
        completion_length_mean=[18 + 10 * s for s in steps],
    )
    assert list(replay(rows)) == []


def test_noise_alone_alarms_in_less_than_one_run_of_twenty() -> None:
    alarmed = sum(any(alarm.sign.acts for alarm in replay(noisy_run(seed))) for seed in range(60))
    assert alarmed <= 3


def noisy_run(seed: int) -> list[Row]:
    """Eight prompts of very different difficulty an iteration, eight completions each; nothing is learned."""
    rng = random.Random(seed)
    rewards, stds = [], []
    for _ in range(50):
        shares = [rng.choice((0.1, 0.5, 0.9, 1.0)) for _ in range(8)]
        right = [rng.random() < share for share in shares for _ in range(8)]
        rewards.append(sum(right) / 64)
        stds.append(math.sqrt(rewards[-1] * (1 - rewards[-1])))
    return rows_of(
        reward_mean=[0.5 + reward for reward in rewards],
        accuracy_train=rewards,
        reward_std=stds,
        tokens_sampled=[20.0 * 64] * 50,
        policy_entropy=[0.05 * math.exp(rng.gauss(0, 0.25)) for _ in range(50)],
        optimizer_grad_norm=[0.5 * math.exp(rng.gauss(0, 0.4)) for _ in range(50)],
    )


def test_a_quiet_metric_does_not_alarm_for_a_whisper() -> None:
    # Its median absolute deviation is 0; the floor of 0.15 makes 4 deviations a factor of e^0.6.
    gradient = Jumps("optimizer/grad_norm", deviations=4.0, factor=1.5)
    small = gradient(History(rows_of(optimizer_grad_norm=[0.5] * 8 + [0.8, 0.8])))
    large = gradient(History(rows_of(optimizer_grad_norm=[0.5] * 8 + [2.0, 2.0])))
    assert small is not None
    assert small.strength == pytest.approx(math.log(1.6) / 0.6)
    assert large is not None
    assert large.strength == pytest.approx(math.log(4) / 0.6)


def test_a_steady_climb_is_no_jump() -> None:
    climb = [1.1**i for i in range(30)]
    found = Jumps("optimizer/grad_norm", 4.0, 2.0)(History(rows_of(optimizer_grad_norm=climb)))
    assert found is not None
    assert found.strength < 1


def test_a_gradient_of_zero_says_nothing() -> None:
    found = Jumps("optimizer/grad_norm", 4.0, 4.0, up=False)
    assert found(History(rows_of(optimizer_grad_norm=[0.5] * 8 + [0.0, 0.0]))) is None


@pytest.mark.parametrize(
    "test",
    [
        Above("a/b", 1, 1),
        Falls("a/b", 4, 0.2),
        Rises("a/b", 2),
        Jumps("a/b", 4, 2),
    ],
)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.5"])
def test_what_is_no_number_is_passed_over(test: Any, value: Any) -> None:
    assert test(History(rows_of(a_b=[1.0] * 10 + [value]))) is None


def test_trimmed_rows_give_the_same_answer() -> None:
    rng = random.Random(1)
    reward = [1.2 + rng.uniform(-0.4, 0.4) for _ in range(60)]
    held_out = [0.8 if i % 7 == 0 else None for i in range(59)] + [0.4]
    rows = rows_of(reward_mean=reward, eval_accuracy=held_out, eval_n=[100.0] * 60)
    assert len(trimmed(rows)) < 30
    assert watch(trimmed(rows)) == watch(rows) != []


def test_a_sign_that_stays_is_reported_once() -> None:
    rows = rows_of(policy_drift=[0.01] * 5 + [0.12] * 20)
    assert [alarm.iteration for alarm in replay(rows)] == [7]


def test_after_a_rollback_the_time_after_the_copy_is_forgotten() -> None:
    reward = [1.2] * 6 + [0.5, 0.5] + [1.2] * 4
    rows = rows_of(reward_mean=reward)
    rows[7]["guard/rolled_back_to"] = 6.0
    assert [alarm.iteration for alarm in replay(rows) if alarm.sign.name == "reward_fall"] == [7]
    rows[8:] = rows_of(reward_mean=[0.5] * 12)[8:]
    assert [alarm.iteration for alarm in replay(rows) if alarm.sign.name == "reward_fall"] == [7, 9]


def test_every_alarm_is_one_line_with_cause_and_knob() -> None:
    (alarm,) = watch(rows_of(policy_drift=[3.0]))
    assert alarm.line.startswith(
        "iteration 1: drift_extreme: policy/drift 3, limit 1; probably one iteration"
    )
    assert "lower training.learning_rate" in alarm.line
    assert all("\n" not in part for sign in SIGNS for part in (sign.cause, sign.knob, str(sign.test)))


def test_names_of_signs_are_unique() -> None:
    assert len({sign.name for sign in SIGNS}) == len(SIGNS)
