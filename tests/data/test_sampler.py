import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.example import DataError
from data.sampler import PromptSampler

counts = st.lists(st.integers(0, 25), max_size=6)


@given(size=st.integers(1, 20), seed=st.integers(-(2**40), 2**40), draws=counts)
def test_every_row_is_drawn_once_per_epoch(size: int, seed: int, draws: list[int]) -> None:
    sampler = PromptSampler(size, seed)
    taken = [index for count in draws for index in sampler.take(count)]
    assert len(taken) == sum(draws)
    for start in range(0, len(taken), size):
        epoch = taken[start : start + size]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(size))


@given(size=st.integers(1, 20), seed=st.integers(0, 99), before=counts, after=counts)
def test_a_resumed_sampler_draws_like_an_uninterrupted_one(
    size: int, seed: int, before: list[int], after: list[int]
) -> None:
    steady = PromptSampler(size, seed)
    for count in before:
        steady.take(count)
    resumed = PromptSampler(size, seed)
    resumed.load_state_dict(json.loads(json.dumps(steady.state_dict())))
    assert [resumed.take(count) for count in after] == [steady.take(count) for count in after]


def test_the_order_does_not_depend_on_the_sizes_of_the_draws() -> None:
    one, many = PromptSampler(10, 3), PromptSampler(10, 3)
    assert one.take(24) == [index for count in (1, 9, 2, 12) for index in many.take(count)]


def test_epochs_have_different_orders() -> None:
    sampler = PromptSampler(50, 0)
    assert sampler.take(50) != sampler.take(50)


@pytest.mark.parametrize("other", [1, -1])
def test_seeds_have_different_orders(other: int) -> None:
    assert PromptSampler(50, 0).take(50) != PromptSampler(50, other).take(50)


def test_a_checkpoint_of_other_rows_is_refused() -> None:
    with pytest.raises(DataError, match="with size 5, this run has 6"):
        PromptSampler(6).load_state_dict(PromptSampler(5).state_dict())


def test_a_checkpoint_of_another_seed_is_refused() -> None:
    with pytest.raises(DataError, match="with seed 1, this run has 2"):
        PromptSampler(6, 2).load_state_dict(PromptSampler(6, 1).state_dict())


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="from 0 rows"):
        PromptSampler(0)


@given(size=st.integers(1, 20), seed=st.integers(0, 99), before=counts, count=st.integers(0, 50))
def test_peek_returns_the_next_draw_and_changes_nothing(
    size: int, seed: int, before: list[int], count: int
) -> None:
    sampler = PromptSampler(size, seed)
    for one in before:
        sampler.take(one)
    state = sampler.state_dict()
    peeked = sampler.peek(count)
    assert sampler.state_dict() == state
    assert sampler.take(count) == peeked
