"""Prompts to experience: selection, refilling, unscored completions, several processes. No model is run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mm_cpgd.config.schema import PartConfig
from mm_cpgd.errors import UserError
from mm_cpgd.interrupt import Interrupted
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Collected
from tests.fakes.collecting import Accelerator, collector, drawn, in_turn, together

FILTER = PartConfig(name="accuracy_filter", low=0.2, high=0.9)


def test_the_accuracy_filter_keeps_prompts_that_are_neither_too_hard_nor_too_easy() -> None:
    found = collector(in_turn("0 0", "0 1", "1 1", "0.5 0"), FILTER).collect(1)
    order = drawn(4)
    assert found.experience.examples == [order[1], order[3]]
    assert found.experience.advantages.tolist() == [-0.5, 0.5, 0.25, -0.25]
    assert found.metrics["groups/kept"] == 0.5
    assert found.metrics["groups/no_signal"] == 0.5
    assert found.metrics["reward/mean"] == pytest.approx(3.5 / 8)


def test_prompts_that_are_left_out_are_reported_without_an_advantage() -> None:
    found = collector(in_turn("0 0", "0 1", "1 ?", "0.5 0"), FILTER).collect(1)
    advantages = [[one.advantage for one in prompt.completions] for prompt in found.rollouts]
    assert advantages == [[None, None], [-0.5, 0.5], [None, None], [0.25, -0.25]]


def test_with_every_prompt_filtered_the_experience_is_empty_and_metrics_are_reported() -> None:
    found = collector(lambda _: ["0", "0"], FILTER).collect(1)
    assert (len(found.experience), found.experience.lengths) == (0, [])
    assert len(found.experience.prompts) == len(found.experience.examples) == 1
    assert found.metrics["groups/kept"] == 0
    assert len(found.rollouts) == 4


def test_dynamic_sampling_refills_and_cuts_to_the_batch_in_the_order_of_drawing() -> None:
    sampling = PartConfig(name="dynamic_sampling", max_rounds=5)
    script = in_turn("0 1", "1 1", "0 0", "1 0", "0 1", "1 0", "1 1", "0 1")
    found = collector(script, sampling).collect(1)
    order = drawn(8)
    assert found.experience.examples == [order[0], order[3], order[4], order[5]]
    assert found.metrics["groups/rounds"] == 2
    assert found.metrics["groups/kept"] == 5 / 8
    assert found.metrics["tokens/sampled"] == 8 * 3


def test_dynamic_sampling_ends_after_its_rounds_with_the_prompts_kept_so_far() -> None:
    sampling = PartConfig(name="dynamic_sampling", max_rounds=3)
    only = drawn(9)[8]
    found = collector(lambda index: ["0", "1"] if index == only else ["1", "1"], sampling).collect(1)
    assert found.metrics["groups/rounds"] == 3
    assert found.experience.examples == [only]


def test_unscored_completions_leave_advantages_averages_and_the_update_and_are_counted() -> None:
    found = collector(in_turn("0 1 ?", "1 1 1", "! ? 1", "0.5 0 1"), completions=3).collect(1)
    # The group mean is over what was scored: 1/2 in the first group, 1 in the third.
    assert found.experience.advantages.tolist() == pytest.approx([-0.5, 0.5, 0, 0, 0, 0, 0, -0.5, 0.5])
    assert found.experience.lengths[0].tolist() == [1, 2, 1, 2, 3, 3, 1, 2, 3]
    assert found.metrics["reward/mean"] == pytest.approx(6.5 / 9)
    assert found.metrics["reward/unscored"] == pytest.approx(3 / 12)
    assert found.metrics["reward/failed"] == pytest.approx(1 / 12)
    assert found.metrics["completion/truncated"] == pytest.approx(1 / 3)


def test_an_unscorable_prompt_takes_no_place_in_a_mini_batch() -> None:
    found = collector(in_turn("? ?", "0 1", "? ?", "1 0"), mini_batch_prompts=1).collect(1)
    assert found.metrics["groups/kept"] == 0.5
    assert [len(part) for part in found.experience.lengths] == [2, 2]
    assert found.experience.mini_batch.tolist() == [0, 0, 1, 1]


def test_with_no_score_at_all_averages_are_not_numbers_and_nothing_is_learned() -> None:
    found = collector(lambda _: ["?", "!"]).collect(1)
    assert math.isnan(found.metrics["reward/mean"])
    assert math.isnan(found.metrics["accuracy/train"])
    assert found.metrics["reward/unscored"] == 1
    assert found.experience.lengths == []


def test_two_processes_collect_the_experience_of_one() -> None:
    selection = PartConfig(name="dynamic_sampling", max_rounds=4)

    def make(process: Accelerator) -> Collector:
        def script(index: int) -> list[str]:
            return [str((index * (k + 3)) % 5 / 4) if index % 3 else "1" for k in range(3)]

        return collector(script, selection, prompts=6, completions=3, mini_batch_prompts=4, process=process)

    def table(found: Collected) -> set[tuple[Any, ...]]:
        rows = found.experience
        owners = [rows.examples[p] for p in rows.prompt_of.tolist()]
        values = zip(
            owners, rows.mask.sum(1).tolist(), rows.advantages.tolist(), rows.mini_batch.tolist(), strict=True
        )
        return set(values)

    alone = make(Accelerator()).collect(2)
    left, right = together(make, 2)
    assert table(left) | table(right) == table(alone)
    assert len(left.experience) + len(right.experience) == len(alone.experience) == 18
    for half in (left, right):
        clocks = ("seconds/reward", "seconds/rollout")
        assert {**half.metrics, **dict.fromkeys(clocks)} == {**alone.metrics, **dict.fromkeys(clocks)}
        assert [part.tolist() for part in half.experience.lengths] == [
            part.tolist() for part in alone.experience.lengths
        ]


def test_every_completion_has_a_seed_of_its_own_and_a_new_one_in_each_iteration() -> None:
    first, second = collector(lambda _: ["0", "1"]), collector(lambda _: ["0", "1"])
    first.collect(1)
    second.collect(2)
    seeds = [
        seed
        for one in (first, second)
        for group in one.engine.seeds.values()  # type: ignore[attr-defined]
        for seed in group
    ]
    assert len(set(seeds)) == 16


def test_prompts_that_cannot_be_distributed_evenly_are_a_user_error() -> None:
    with pytest.raises(UserError, match=r"rollout\.prompts=4 must be a multiple of the 3 processes"):
        collector(lambda _: ["0", "1"], process=Accelerator(0, 3))


def test_between_two_batches_the_collector_can_be_stopped() -> None:
    made = collector(lambda _: ["0", "1"], batch_prompts=1)
    asked: list[int] = []

    def after_two() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Interrupted):
        made.collect(1, after_two)
    assert made.engine.calls == [1, 1]  # type: ignore[attr-defined]
