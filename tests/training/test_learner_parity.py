"""The learner on samples of another engine: the comparison before the first step, and corrections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mm_cpgd.algorithms.corrections import Correction
from mm_cpgd.policy import Policy
from mm_cpgd.rollout.parity import Differences, EngineMismatch, ParityGate
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.learner import Learner, average
from tests.fakes.learning import LENGTHS, Recorder, assert_same, halves, learner

KINDS = [Correction(by_sequence, masks, 1.4, 0.7) for by_sequence in (False, True) for masks in (False, True)]


class Gate(ParityGate):
    """A gate that keeps what it was shown, and when."""

    def __init__(self, recorder: Recorder, bound: float = 1e9) -> None:
        super().__init__(bound, "given")
        self.recorder = recorder
        self.shown: list[tuple[Differences, int]] = []

    def check(self, found: Differences, iteration: int) -> None:
        self.shown.append((found, len(self.recorder.steps)))
        super().check(found, iteration)


@pytest.fixture(scope="module")
def old(policy: Policy, whole: Experience) -> Tensor:
    made, _ = learner(policy)
    return made._evaluate(whole, policy, [0])[0]


@pytest.fixture
def sampled(whole: Experience, old: Tensor) -> Callable[..., Experience]:
    """Make an experience whose engine's log-probabilities differ from the trainer's by given gaps."""

    def make(gaps: Tensor | float, in_halves: bool = False) -> Experience:
        rows = halves(whole) if in_halves else Experience.from_state(whole.state(), whole.prompts)
        rows.sampled_logprobs = old - gaps
        return rows

    return make


def noise(scale: float = 0.5) -> Tensor:
    return torch.randn(8, max(LENGTHS), generator=torch.Generator().manual_seed(3)) * scale


def with_gate(policy: Policy, bound: float = 1e9, **options: Any) -> tuple[Learner, Gate]:
    made, recorder = learner(policy, **options)
    made.parity = gate = Gate(recorder, bound)
    return made, gate


@pytest.mark.parametrize("in_halves", [False, True])
@pytest.mark.parametrize("tokens", [1, 4096])
def test_all_tokens_of_the_rollout_batch_are_compared_once_before_the_first_step(
    policy: Policy, sampled: Callable[..., Experience], whole: Experience, in_halves: bool, tokens: int
) -> None:
    gaps = noise()
    made, gate = with_gate(policy, inner_epochs=2, tokens=tokens)
    steps = list(made.update(sampled(gaps, in_halves), 1))
    ((found, done),) = gate.shown
    assert (found.tokens, done) == (sum(LENGTHS), 0)
    assert found.mean == pytest.approx(float(gaps[whole.mask].abs().mean()), rel=1e-5)
    assert found.largest == pytest.approx(float(gaps[whole.mask].abs().max()), rel=1e-5)
    assert [("rollout/logprob_difference_mean" in step) for step in steps] == [True] + [False] * (
        len(steps) - 1
    )
    assert average(steps)["rollout/logprob_difference_mean"] == found.mean


def test_a_difference_beyond_the_bound_leaves_neither_step_nor_gradient(
    policy: Policy, sampled: Callable[..., Experience]
) -> None:
    for in_halves in (False, True):
        made, gate = with_gate(policy, bound=1e-3)
        with pytest.raises(EngineMismatch, match=r"0\.01 nats"):
            list(made.update(sampled(0.01, in_halves), 1))
        assert gate.recorder.steps == []
        assert all(parameter.grad is None for parameter in policy.parameters())


@pytest.mark.parametrize("row", range(0, 8, 2))
def test_a_difference_in_any_mini_batch_counts(
    policy: Policy, sampled: Callable[..., Experience], row: int
) -> None:
    gaps = torch.zeros(8, max(LENGTHS))
    gaps[row] = 1.0
    made, _ = with_gate(policy, bound=1e-3)
    with pytest.raises(EngineMismatch):
        list(made.update(sampled(gaps, in_halves=True), 1))


def test_a_run_that_resumes_amid_the_iteration_does_not_compare_again(
    policy: Policy, sampled: Callable[..., Experience]
) -> None:
    rows = sampled(noise(), in_halves=True)
    made, gate = with_gate(policy)
    every = list(made.update(rows, 1))
    assert list(made.update(rows, 1, done=1)) == every[1:]
    assert len(gate.shown) == 1


def test_the_comparison_needs_no_further_forward_pass(
    policy: Policy, sampled: Callable[..., Experience], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = policy.forward, [0]

    def counted(*arguments: Any, **options: Any) -> Any:
        calls[-1] += 1
        return forward(*arguments, **options)

    monkeypatch.setattr(policy, "forward", counted)
    for in_halves in (False, True):
        list(learner(policy)[0].update(sampled(0.0, in_halves), 1))
        calls.append(0)
        list(with_gate(policy)[0].update(sampled(0.0, in_halves), 1))
        calls.append(0)
    assert calls == [1, 1, 3, 3, 0]


def test_the_cut_mass_is_no_difference(policy: Policy, sampled: Callable[..., Experience]) -> None:
    mass = -noise().abs()
    rows = sampled(mass)  # ln π over all tokens = ln π over the kept ones + mass
    rows.kept_mass = mass
    made, gate = with_gate(policy)
    list(made.update(rows, 1))
    assert gate.shown[0][0].largest < 1e-6


def test_tokens_that_the_trainer_has_no_number_for_are_left_to_the_count_of_skipped_steps(
    policy: Policy, sampled: Callable[..., Experience]
) -> None:
    rows = sampled(0.0)
    rows.old_logprobs = torch.full(rows.mask.shape, torch.nan)
    assert rows.gaps().shape == (0,)


def one_step(
    policy: Policy, rows: Experience, correction: Correction | None, tokens: int = 4096
) -> tuple[dict[str, Tensor], dict[str, float]]:
    made, recorder = learner(policy, tokens=tokens)
    made.correction = correction
    (metrics,) = made.update(rows, 1)
    return recorder.steps[0], metrics


def test_off_changes_no_bit(policy: Policy, whole: Experience, sampled: Callable[..., Experience]) -> None:
    local = Experience.from_state(whole.state(), whole.prompts)
    expected, metrics = one_step(policy, local, None)
    found, others = one_step(policy, sampled(noise()), None)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert others == metrics


@pytest.mark.parametrize("correction", KINDS)
def test_micro_batches_change_no_corrected_gradient(
    policy: Policy, sampled: Callable[..., Experience], correction: Correction
) -> None:
    expected, metrics = one_step(policy, sampled(noise()), correction)
    found, others = one_step(policy, sampled(noise()), correction, tokens=1)
    assert_same(found, expected)
    assert others == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    share = metrics["rollout/weight_masked" if correction.masks else "rollout/weight_clipped"]
    assert 0 < share < 1


@pytest.mark.parametrize("masks", [False, True])
def test_a_sequence_weight_scales_the_advantages_of_its_completion(
    policy: Policy, whole: Experience, sampled: Callable[..., Experience], masks: bool
) -> None:
    gaps = torch.tensor([0.1, -0.2, 0.6, 0.0, -0.6, 0.3, 0.05, -0.05])
    factors = gaps.exp().clamp(max=1.4)
    if masks:
        factors = torch.where((gaps.exp() > 1.4) | (gaps.exp() < 0.7), 0.0, gaps.exp())
    correction = Correction(by_sequence=True, masks=masks, cap=1.4, floor=0.7)
    # At the first step the policy drift has no gradient, so only the surrogate counts.
    found, _ = one_step(policy, sampled(gaps[:, None].expand(8, max(LENGTHS))), correction)
    scaled = Experience.from_state(whole.state(), whole.prompts)
    scaled.advantages = whole.advantages * factors
    expected, _ = one_step(policy, scaled, None)
    assert_same(found, expected)


@pytest.mark.parametrize("tokens", [1, 4096])
def test_a_token_without_a_number_leaves_the_engines_numbers_of_the_others(
    policy: Policy, whole: Experience, old: Tensor, tokens: int
) -> None:
    gaps = noise()
    gaps[0, 1] = 0.0  # as the policy at the first step sees it
    found = []
    for value in (old[0, 1], torch.nan):
        rows = Experience.from_state(whole.state(), whole.prompts)
        rows.old_logprobs = old - gaps  # of a batch that was sampled ahead
        rows.old_logprobs[0, 1] = value
        made, _ = learner(policy, tokens=tokens)
        found.append(next(made.update(rows, 1)))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[1]["policy/ratio_max"] > 1.5
