"""Schedule of completions over places, and of prompts over slots."""

from __future__ import annotations

import random

import pytest

from mm_cpgd.rollout.schedule import Schedule


def test_completions_begin_in_order_in_seats_of_their_prompts_slot() -> None:
    starts = Schedule(prompts=3, copies=2, places=5, slots=2).start()
    assert starts.prompts == [0, 1]
    assert starts.slots == [0, 1]
    assert starts.places == [0, 1, 2, 3]
    assert starts.completions == [0, 1, 2, 3]
    assert starts.seats == [0, 1, 2, 3]


def test_a_prompt_without_a_slot_waits_until_all_of_anothers_completions_end() -> None:
    schedule = Schedule(prompts=3, copies=2, places=4, slots=2)
    schedule.start()
    assert schedule.end([2]) == [2]
    assert schedule.start().places == []
    assert schedule.end([3]) == [3]
    starts = schedule.start()
    assert (starts.prompts, starts.slots) == ([2], [1])
    assert (starts.places, starts.completions, starts.seats) == ([2, 3], [4, 5], [2, 3])
    assert schedule.waiting == 0


def test_prompts_have_ended_in_order() -> None:
    schedule = Schedule(prompts=3, copies=1, places=3, slots=3)
    schedule.start()
    schedule.end([1])
    assert schedule.ended_prompts(0) == 0
    schedule.end([0])
    assert schedule.ended_prompts(0) == 2
    assert schedule.ended_prompts(2) == 0
    schedule.end([2])
    assert schedule.ended_prompts(2) == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_completion_begins_once_and_no_two_share_a_seat(seed: int) -> None:
    draw = random.Random(seed)
    prompts, copies = draw.randint(1, 9), draw.randint(1, 4)
    schedule = Schedule(prompts, copies, draw.randint(1, 8), draw.randint(1, 5))
    seat_of: dict[int, int] = {}
    begun: list[int] = []
    loaded: dict[int, int] = {}
    while len(begun) < prompts * copies or schedule.running:
        starts = schedule.start()
        loaded.update(zip(starts.slots, starts.prompts, strict=True))
        begun += starts.completions
        seat_of.update(zip(starts.places, starts.seats, strict=True))
        running = schedule.running
        assert len({seat_of[place] for place in running}) == len(running)
        for place in running:
            completion = schedule.owner[place]
            assert completion is not None
            assert loaded[seat_of[place] // copies] == completion // copies
        ended = draw.sample(running, draw.randint(1, len(running)))
        for place in ended:
            seat_of.pop(place)
        schedule.end(ended)
    assert begun == list(range(prompts * copies))


def test_the_places_that_are_kept_keep_their_completions() -> None:
    schedule = Schedule(prompts=2, copies=2, places=4, slots=2)
    schedule.start()
    schedule.end([0, 2])
    schedule.keep([1, 3])
    assert schedule.owner == [1, 3]
    assert schedule.end([1]) == [3]
