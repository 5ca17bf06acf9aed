"""Importance weights: closed forms of each correction, and independence of the other rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mm_cpgd.algorithms.corrections import Correction, Weights, importance_weights, weight_metrics

# Ratios π_old / π_sampled of two completions of three tokens and one; the rest is padding.
RATIOS = torch.tensor([[0.25, 1.0, 8.0], [1.2, 9.0, 9.0]])
MASK = torch.tensor([[True, True, True], [True, False, False]])
LENGTHS = torch.tensor([3.0, 1.0])
SAMPLED = torch.tensor([[-2.0, -0.5, -4.0], [-1.0, 0.0, 0.0]])
OLD = SAMPLED + RATIOS.log()
# The third root of 0.25 · 1 · 8.
ROOT = 2 ** (1 / 3)
KINDS = [Correction(by_sequence, masks, 2.0, 0.5) for by_sequence in (False, True) for masks in (False, True)]


def weights(correction: Correction, old: Tensor = OLD, sampled: Tensor = SAMPLED) -> Weights:
    return importance_weights(old, sampled, MASK, correction)


def test_truncated_tokens_weigh_their_ratio_up_to_the_cap() -> None:
    found = weights(Correction(cap=2.0, floor=0.5))
    torch.testing.assert_close(found.values, torch.tensor([[0.25, 1.0, 2.0], [1.2, 1.0, 1.0]]))
    assert found.truncated.tolist() == [[False, False, True], [False, False, False]]
    assert found.taking_part.all()


def test_truncated_sequences_weigh_the_geometric_mean_of_their_ratios() -> None:
    found = weights(Correction(by_sequence=True, cap=1.21))
    expected = torch.tensor([[1.21, 1.21, 1.21], [1.2, 1.0, 1.0]])
    torch.testing.assert_close(found.values, expected)
    assert found.truncated.tolist() == [[True, True, True], [False, False, False]]
    below = weights(Correction(by_sequence=True, cap=1.3))
    torch.testing.assert_close(below.values[0], torch.full((3,), ROOT))


def test_masked_tokens_weigh_their_ratio_within_the_bounds_and_leave_the_loss_beyond() -> None:
    found = weights(Correction(masks=True, cap=2.0, floor=0.5))
    torch.testing.assert_close(found.values, torch.tensor([[0.0, 1.0, 0.0], [1.2, 1.0, 1.0]]))
    assert (MASK & ~found.taking_part).tolist() == [[True, False, True], [False, False, False]]
    assert not found.truncated.any()


def test_masked_sequences_leave_the_loss_as_a_whole() -> None:
    found = weights(Correction(by_sequence=True, masks=True, cap=1.25, floor=0.5))
    torch.testing.assert_close(found.values, torch.tensor([[0.0, 0.0, 0.0], [1.2, 1.0, 1.0]]))
    assert (MASK & ~found.taking_part).tolist() == [[True, True, True], [False, False, False]]


@pytest.mark.parametrize(("cap", "floor"), [(1.2, 0.0), (9.0, 1.3)])
def test_a_sequence_is_masked_on_either_side(cap: float, floor: float) -> None:
    found = weights(Correction(by_sequence=True, masks=True, cap=cap, floor=floor))
    assert not found.taking_part[0].any()


def test_the_geometric_mean_of_a_long_completion_is_as_far_off_as_that_of_a_short_one() -> None:
    for length in (10, 4000):
        old = torch.full((1, length), math.log(1.01))
        mask = torch.ones(1, length, dtype=torch.bool)
        found = importance_weights(old, torch.zeros(1, length), mask, Correction(True, True, 1.05, 0.95))
        torch.testing.assert_close(found.values, torch.full((1, length), 1.01))


@pytest.mark.parametrize("correction", KINDS)
def test_equal_distributions_have_weight_one(correction: Correction) -> None:
    found = weights(correction, old=SAMPLED)
    assert (found.values == 1).all()
    assert found.taking_part.all()


@pytest.mark.parametrize("correction", KINDS)
def test_a_row_depends_on_nothing_but_itself(correction: Correction) -> None:
    generator = torch.Generator().manual_seed(0)
    old, sampled = torch.randn(2, 6, 5, generator=generator)
    mask = torch.arange(5) < torch.tensor([5, 1, 3, 2, 5, 4])[:, None]
    whole = importance_weights(old, sampled, mask, correction)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = importance_weights(old[order], sampled[order], mask[order], correction)
    torch.testing.assert_close(shuffled.values, whole.values[order], rtol=0, atol=0)
    # Micro-batches are trimmed to their longest row.
    alone = importance_weights(old[2:3, :3], sampled[2:3, :3], mask[2:3, :3], correction)
    torch.testing.assert_close(alone.values, whole.values[2:3, :3], rtol=1e-6, atol=0)
    assert torch.equal(alone.taking_part, whole.taking_part[2:3, :3])


@pytest.mark.parametrize("correction", KINDS)
def test_padding_has_no_influence(correction: Correction) -> None:
    spoiled = torch.where(MASK, SAMPLED, torch.nan)
    torch.testing.assert_close(weights(correction, sampled=spoiled).values, weights(correction).values)


def test_a_token_without_a_number_keeps_its_weight_under_truncation_and_leaves_under_a_mask() -> None:
    sampled = SAMPLED.clone()
    sampled[0, 0] = torch.nan
    assert weights(Correction(cap=2.0), sampled=sampled).values[0, 0] == 1.0
    assert not weights(Correction(False, True, 2.0, 0.5), sampled=sampled).taking_part[0, 0]
    # Of the completion, the others make the mean: √(1 · 8).
    found = weights(Correction(by_sequence=True, cap=3.0), sampled=sampled)
    torch.testing.assert_close(found.values[0], torch.full((3,), math.sqrt(8)))


def test_a_completion_without_any_number_keeps_its_weight_or_leaves() -> None:
    sampled = torch.full_like(SAMPLED, torch.nan)
    assert (weights(Correction(by_sequence=True, cap=2.0), sampled=sampled).values == 1).all()
    found = weights(Correction(True, True, 2.0, 0.5), sampled=sampled)
    assert torch.equal(found.taking_part, ~MASK)


def test_what_the_cuts_left_multiplies_the_weight_and_is_no_part_of_the_ratio() -> None:
    mass = torch.tensor([[0.5, 0.8, 0.9], [0.6, 1.0, 1.0]]).log()
    old = OLD + mass  # over all tokens
    for correction in KINDS:
        found = importance_weights(old, SAMPLED, MASK, correction, kept_mass=mass)
        expected = torch.where(MASK, weights(correction).values * mass.exp(), 1.0)
        torch.testing.assert_close(found.values, expected)
        assert torch.equal(found.taking_part, weights(correction).taking_part)


def test_without_a_cap_the_weight_is_the_ratio() -> None:
    torch.testing.assert_close(weights(Correction()).values[MASK], RATIOS[MASK])
    assert not weights(Correction()).truncated.any()


def test_metrics_are_token_means_and_add_up_over_micro_batches() -> None:
    for correction, expected in (
        (Correction(cap=2.0), {"weight": (0.25 + 1 + 2 + 1.2) / 4, "weight_clipped": 0.25}),
        (Correction(False, True, 2.0, 0.5), {"weight": (1 + 1.2) / 4, "weight_masked": 0.5}),
        (Correction(), {"weight": (0.25 + 1 + 8 + 1.2) / 4}),
    ):
        found = weights(correction)
        whole = weight_metrics(found, MASK, LENGTHS, correction)
        assert {name: float(value) for name, value in whole.items()} == pytest.approx(expected)
        parts = [
            weight_metrics(
                importance_weights(OLD[row], SAMPLED[row], MASK[row], correction),
                MASK[row],
                LENGTHS,
                correction,
            )
            for row in ([0], [1])
        ]
        for name, value in whole.items():
            torch.testing.assert_close(sum(part[name] for part in parts), value)
