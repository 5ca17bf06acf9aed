import numpy as np
import pytest

from data.sampler import ScoredPromptSampler


def scored(share: float = 0.5, size: int = 20) -> ScoredPromptSampler:
    sampler = ScoredPromptSampler(size, seed=3, share=share)
    sampler.update_scores(range(size), [float(index < 4) for index in range(size)])
    return sampler


def test_without_scores_it_draws_every_row_once_per_epoch() -> None:
    sampler = ScoredPromptSampler(12, seed=1)
    assert sorted(sampler.take(6) + sampler.take(6)) == list(range(12))


def test_the_share_that_is_drawn_by_score_comes_from_rows_with_one() -> None:
    sampler = scored()
    for _ in range(20):
        drawn = sampler.take(4)
        assert len(drawn) == 4
        assert sum(index < 4 for index in drawn) >= 2


def test_no_row_is_drawn_both_by_score_and_uniformly() -> None:
    sampler = scored(size=30)
    for _ in range(7):
        drawn = sampler.take(4)
        assert len(set(drawn)) == 4


def test_rows_are_drawn_in_proportion_to_their_scores() -> None:
    sampler = ScoredPromptSampler(3, seed=0, share=1.0)
    sampler.update_scores([0, 1, 2], [1.0, 3.0, 0.0])
    counts = np.bincount([sampler.take(1)[0] for _ in range(4000)], minlength=3)
    # Expected 1000 and 3000; 5 standard deviations of a binomial are 137.
    assert counts[2] == 0
    assert abs(counts[0] - 1000) < 137


def test_too_few_rows_with_a_score_are_supplemented_uniformly() -> None:
    sampler = ScoredPromptSampler(10, seed=0, share=1.0)
    sampler.update_scores([7], [0.2])
    drawn = sampler.take(5)
    assert len(drawn) == 5
    assert 7 in drawn


def test_a_newer_score_replaces_an_older_one() -> None:
    sampler = scored(share=1.0)
    sampler.update_scores([0, 1, 2, 3, 9], [0.0, 0.0, 0.0, 0.0, 1.0])
    assert sampler.take(1) == [9]


def test_a_resumed_sampler_draws_like_an_uninterrupted_one() -> None:
    steady = scored()
    steady.take(6)
    state = steady.state_dict()
    steady.update_scores([5], [8.0])
    resumed = ScoredPromptSampler(20, seed=3)
    resumed.load_state_dict(state)
    assert np.isnan(resumed.scores).sum() == 0
    assert resumed.scores[5] == 0
    resumed.update_scores([5], [8.0])
    assert [resumed.take(5) for _ in range(5)] == [steady.take(5) for _ in range(5)]


def test_a_state_without_scores_is_accepted() -> None:
    sampler = scored()
    sampler.load_state_dict({"size": 20, "seed": 3, "epoch": 1, "position": 2})
    assert np.isnan(sampler.scores).all()
    assert (sampler.epoch, sampler.position, sampler.draws) == (1, 2, 0)


def test_seeds_have_different_draws() -> None:
    draws = []
    for seed in (1, 2):
        sampler = ScoredPromptSampler(50, seed, share=1.0)
        sampler.update_scores(range(50), [1.0] * 50)
        draws.append(sampler.take(10))
    assert draws[0] != draws[1]


def test_rows_of_another_size_are_refused() -> None:
    with pytest.raises(Exception, match="size"):
        scored().load_state_dict(ScoredPromptSampler(5, seed=3).state_dict())


def test_peek_returns_the_next_draw_and_changes_nothing() -> None:
    sampler, untouched = scored(), scored()
    for _ in range(8):
        peeked = sampler.peek(7)
        assert peeked == sampler.take(7) == untouched.take(7)
    assert sampler.draws == untouched.draws
