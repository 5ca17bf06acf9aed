"""The engine's log-probabilities compared with the trainer's: statistics, the gate and its message."""

from __future__ import annotations

import math

import pytest
import torch

from mm_cpgd.rollout.parity import EngineMismatch, ParityGate, compare_logprobs, largest_difference


def test_the_statistics_are_the_mean_the_maximum_and_the_mean_of_all_but_the_largest_hundredth() -> None:
    gaps = torch.tensor([0.001] * 198 + [-0.5, 0.7])
    found = compare_logprobs(gaps)
    assert (found.tokens, found.missing) == (200, 0)
    assert found.mean == pytest.approx((0.198 + 1.2) / 200)
    assert found.largest == pytest.approx(0.7)
    assert found.trimmed == pytest.approx(0.001)


def test_the_order_of_tokens_changes_no_digit() -> None:
    gaps = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 1e-7
    assert compare_logprobs(gaps) == compare_logprobs(gaps.flip(0))


def test_a_token_without_a_number_is_one_of_the_largest_differences() -> None:
    gaps = torch.zeros(200)
    gaps[:2] = torch.nan
    few = compare_logprobs(gaps)
    assert (few.trimmed, few.largest, few.missing) == (0.0, 0.0, pytest.approx(0.01))
    gaps[2] = -math.inf
    assert compare_logprobs(gaps).trimmed == math.inf


def test_an_engine_that_gives_no_numbers_is_stopped() -> None:
    with pytest.raises(EngineMismatch, match=r"inf nats .* 100\.0% of them without a number"):
        ParityGate(1.0, "given").check(compare_logprobs(torch.full((3,), torch.nan)), 1)


def test_the_only_token_is_not_left_out() -> None:
    assert compare_logprobs(torch.tensor([0.3])).trimmed == pytest.approx(0.3)


def test_without_tokens_there_is_nothing_to_compare() -> None:
    found = compare_logprobs(torch.zeros(0))
    ParityGate(1e-9, "given").check(found, 1)
    assert found.metrics == {}


def test_the_bound_itself_is_allowed() -> None:
    gate = ParityGate(0.25, "given")
    gate.check(compare_logprobs(torch.full((200,), 0.25)), 1)
    with pytest.raises(EngineMismatch, match=r"0\.26 nats .* allowed are 0\.25 \(given\)"):
        gate.check(compare_logprobs(torch.full((200,), 0.26)), 2)


def test_a_few_tokens_at_the_edge_of_a_cut_do_not_stop_a_run() -> None:
    gaps = torch.full((1000,), 1e-7)
    gaps[:10] = 0.3
    ParityGate(1e-5, "given").check(compare_logprobs(gaps), 1)
    gaps[10] = 0.3
    with pytest.raises(EngineMismatch):
        ParityGate(1e-5, "given").check(compare_logprobs(gaps), 1)


def difference(size: float) -> torch.Tensor:
    return torch.full((10,), size)


def test_the_message_tells_stale_weights_from_another_model_by_the_batches_before() -> None:
    with pytest.raises(
        EngineMismatch, match="first batch of the run; stale weights would show from the second"
    ):
        ParityGate(1e-5, "given").check(compare_logprobs(difference(1e-3)), 1)
    with pytest.raises(EngineMismatch, match="since the run was resumed"):
        ParityGate(1e-5, "given").check(compare_logprobs(difference(1e-3)), 7)
    gate = ParityGate(1e-5, "given")
    gate.check(compare_logprobs(difference(1e-7)), 1)
    with pytest.raises(
        EngineMismatch, match="It was 1e-07 in the batch before: so it looks when new weights"
    ):
        gate.check(compare_logprobs(difference(3e-4)), 2)
    gate.check(compare_logprobs(difference(9e-6)), 2)
    with pytest.raises(EngineMismatch, match="keeps growing"):
        gate.check(compare_logprobs(difference(2e-5)), 3)


def test_the_message_names_what_to_check() -> None:
    with pytest.raises(EngineMismatch) as caught:
        ParityGate(1e-5, "given").check(compare_logprobs(difference(1.0)), 1)
    for word in ("chat template", "max_pixels", "dtype", "quantization", "temperature", "max_difference"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        ([torch.float32], (1e-5, torch.float32)),
        ([torch.float32, torch.bfloat16], (5e-2, torch.bfloat16)),
        ([torch.float16, torch.float32], (5e-3, torch.float16)),
        ([torch.float64, torch.float8_e4m3fn], (5e-2, torch.float8_e4m3fn)),
    ],
)
def test_the_default_bound_is_that_of_the_coarsest_format(
    formats: list[torch.dtype], expected: tuple[float, torch.dtype]
) -> None:
    assert largest_difference(formats) == expected


def test_the_found_staleness_is_beyond_the_bound_of_float32_and_right_weights_are_within() -> None:
    # Measured on vLLM in float32: docs/vllm.md, "Numerical differences".
    bound, _ = largest_difference([torch.float32])
    assert 1.1e-7 * 50 < bound < 3e-4 / 20
