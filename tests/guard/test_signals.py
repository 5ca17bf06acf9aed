"""Collapse signals: the rows in which they alarm, and healthy rows in which they must not."""

from __future__ import annotations

import math
import random
import re

from mm_cpgd.guard import SIGNALS, replay, watch
from tests.fakes.guard import Row, rows_of
from tests.paths import DOCS


def names(rows: list[Row]) -> set[str]:
    return {alarm.signal.name for alarm in watch(rows)}


def test_high_drift_alarms_in_the_second_iteration_in_a_row() -> None:
    drift = [0.01] * 5 + [0.3, 0.01, 0.3, 0.07]
    rows = rows_of(policy_drift=drift)
    assert [(alarm.iteration, alarm.signal.name) for alarm in replay(rows)] == [(9, "drift_high")]


def test_a_drift_of_three_nats_alarms_in_the_first_iteration() -> None:
    assert names(rows_of(policy_drift=[3.0])) == {"drift_extreme"}


def test_the_same_fall_in_a_small_sample_is_noise() -> None:
    reward = [1.2] * 6 + [0.85, 0.85]
    assert "reward_fall" in names(rows_of(reward_mean=reward))
    few = rows_of(reward_mean=reward, tokens_sampled=[20.0 * 32] * 8)
    assert "reward_fall" not in names(few)


def test_a_significant_but_small_fall_raises_no_alarm() -> None:
    rows = rows_of(reward_mean=[1.2] * 6 + [1.1, 1.1], tokens_sampled=[20.0 * 1e6] * 8)
    assert names(rows) == set()


def test_a_perfect_share_keeps_some_variance() -> None:
    # 4 completions of one prompt: a wrong one after all correct ones is noise.
    rows = rows_of(accuracy_train=[1.0] * 5 + [0.5, 0.5], tokens_sampled=[80.0] * 7, reward_std=[0.0] * 7)
    assert "accuracy_fall" not in names(rows)


def test_entropy_that_rises_while_the_reward_falls_alarms() -> None:
    entropy = [0.05, 0.02, 0.02, 0.06, 0.08]
    assert names(rows_of(policy_entropy=entropy, reward_mean=[1.2, 1.4, 1.4, 1.1, 0.9])) >= {"entropy_rise"}
    assert names(rows_of(policy_entropy=entropy, reward_mean=[1.2, 1.4, 1.4, 1.4, 1.4])) == set()


def test_a_lost_format_alarms() -> None:
    assert "format_fall" in names(rows_of(reward_format=[1.0] * 6 + [0.6, 0.5]))


def test_a_held_out_fall_alarms_only_in_the_iteration_of_its_evaluation() -> None:
    accuracy = [0.9, None, 0.9, None, 0.4, None]
    rows = rows_of(eval_accuracy=accuracy, eval_n=[200.0] * 6)
    assert names(rows[:5]) == {"held_out_fall"}
    assert names(rows) == set()


def test_a_solved_task_raises_no_alarm() -> None:
    # Reward at its maximum, entropy down twentyfold, neither signal nor gradient left, length × 1.5.
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
    alarmed = sum(any(alarm.signal.actionable for alarm in replay(noisy_run(seed))) for seed in range(60))
    assert alarmed <= 3


def noisy_run(seed: int) -> list[Row]:
    """Eight prompts of very different difficulty per iteration, eight completions each, without learning."""
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


def test_the_page_lists_every_signal_and_marks_those_that_are_acted_upon() -> None:
    table = (DOCS / "guard.md").read_text(encoding="utf-8").split("## Signals")[1]
    listed = set(re.findall(r"`([a-z_]+)`(\*?)", "".join(row.split("|")[1] for row in table_rows(table))))
    assert listed == {(signal.name, "*" * signal.actionable) for signal in SIGNALS}


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


def test_names_of_signals_are_unique() -> None:
    assert len({signal.name for signal in SIGNALS}) == len(SIGNALS)


def test_a_growing_difference_to_the_engine_alarms_and_is_not_acted_upon() -> None:
    # As measured of an engine that kept its first head, at a learning rate of 2e-5.
    rows = rows_of(rollout_logprob_difference_mean=[1.3e-7, 3.1e-4, 4.9e-4, 5.6e-4])
    (alarm,) = watch(rows)
    assert (alarm.signal.name, alarm.signal.actionable) == ("engine_drift", False)
    bfloat16 = [0.008, 0.01, 0.009, 0.012, 0.02, 0.03, 0.05, 0.06]
    assert names(rows_of(rollout_logprob_difference_mean=bfloat16)) == {"engine_drift"}


def test_a_difference_that_varies_or_means_nothing_raises_no_alarm() -> None:
    rng = random.Random(0)
    rounding = [0.01 * math.exp(rng.gauss(0, 0.3)) for _ in range(60)]
    assert list(replay(rows_of(rollout_logprob_difference_mean=rounding))) == []
    tiny = [1e-8, 1e-8, 1e-6, 5e-5, 5e-5]
    assert names(rows_of(rollout_logprob_difference_mean=tiny)) == set()
    falling = [0.01 * math.exp(-0.1 * i) for i in range(40)]
    assert list(replay(rows_of(rollout_logprob_difference_mean=falling))) == []
