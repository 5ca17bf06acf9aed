"""Parts that need whole mini-batches: the same for every micro-batch size, old values complete, saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.policy import Policy
from mm_cpgd.training.experience import Experience
from tests.fakes.learning import LENGTHS, assert_same, gradient, halves, learner

PREPARED = ["cpgd_forking", "clip_cov", "kl_cov"]


def fresh(rows: Experience) -> Experience:
    return Experience.from_state(rows.state(), rows.prompts)


@pytest.mark.parametrize("recipe", PREPARED)
def test_micro_batches_leave_the_gradient_unchanged(
    policy: Policy,
    whole: Experience,
    recipe: str,
) -> None:
    expected, metrics = gradient(policy, whole, recipe)
    found, others = gradient(policy, whole, recipe, tokens=40)
    assert_same(found, expected)
    assert others == pytest.approx(metrics, rel=1e-4, abs=1e-6)


def test_forking_tokens_are_a_fifth_of_each_mini_batch(
    policy: Policy,
    whole: Experience,
) -> None:
    rows = halves(whole)
    made, _ = learner(policy, "cpgd_forking")
    made.prepare(rows, 1)
    assert rows.prepared is not None
    (weights,) = rows.prepared.values()
    assert weights[~rows.mask].sum() == 0
    for half, lengths in ((slice(0, 4), LENGTHS[:4]), (slice(4, 8), LENGTHS[4:])):
        # The tokens at or above the interpolated quantile 0.8 of n values: the floor of (n − 1)/5, and one.
        assert weights[half].sum() == (sum(lengths) - 1) // 5 + 1


def test_old_log_probabilities_are_known_for_every_token_beforehand(
    policy: Policy,
    whole: Experience,
) -> None:
    rows = halves(whole)
    learner(policy, "kl_cov")[0].prepare(rows, 1)
    assert rows.old_logprobs is not None
    assert rows.old_logprobs.isfinite().all()
    assert (rows.old_logprobs[rows.mask] < 0).all()


def test_recipes_without_such_parts_need_no_forward_pass(
    policy: Policy,
    whole: Experience,
) -> None:
    rows = fresh(whole)
    learner(policy, "cpgd")[0].prepare(rows, 1)
    assert rows.prepared is None
    assert rows.old_logprobs is None


def test_prepared_values_are_saved_and_not_computed_again(
    policy: Policy,
    whole: Experience,
    tmp_path: Path,
) -> None:
    rows = fresh(whole)
    made, _ = learner(policy, "cpgd_forking")
    made.prepare(rows, 1)
    save_state(tmp_path / "rows.safetensors", rows.state())
    again = Experience.from_state(load_state(tmp_path / "rows.safetensors"), rows.prompts)
    assert rows.prepared
    assert again.prepared
    marked = {name: values + 1 for name, values in again.prepared.items()}
    again.prepared = marked
    made.prepare(again, 1)
    assert again.prepared is marked
    ((name, values),) = rows.prepared.items()
    torch.testing.assert_close(marked[name] - 1, values)


def test_an_entropy_bonus_reaches_the_weights(
    policy: Policy,
    whole: Experience,
) -> None:
    with_bonus, metrics = gradient(policy, whole, "cpgd_entropy")
    without, _ = gradient(policy, whole, "cpgd")
    difference = max(float((with_bonus[name] - without[name]).abs().max()) for name in without)
    assert difference > 1e-5
    # Ω = −0.001·H, and ℓ = 0, so that the drift is 0.
    assert metrics["objective/penalty"] == pytest.approx(-0.001 * metrics["policy/entropy"], rel=1e-5)
