"""From experience to gradients and optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mm_cpgd.policy import Policy
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.learner import average, combine
from mm_cpgd.training.optimizer import Diverged, OptimizerStep
from tests.fakes.learning import ADVANTAGES, LENGTHS, Schedule, assert_same, gradient, halves, learner


@pytest.mark.parametrize("tokens", [1, 120])
def test_the_micro_batch_changes_neither_gradient_nor_metrics(
    policy: Policy, whole: Experience, tokens: int
) -> None:
    expected, metrics = gradient(policy, whole)
    found, others = gradient(policy, whole, tokens=tokens)
    assert_same(found, expected)
    assert others == pytest.approx(metrics, rel=1e-6, abs=1e-6)


def test_the_accumulated_gradient_is_that_of_one_token_mean_over_all_rows(
    policy: Policy, whole: Experience
) -> None:
    found, _ = gradient(policy, whole, "pg", tokens=120)
    policy.zero_grad(set_to_none=True)
    for row, (length, advantage) in enumerate(zip(LENGTHS, ADVANTAGES, strict=True)):
        tokens = whole.tokens[row : row + 1, :length]
        logprobs, _ = policy([whole.prompts[row // 2]], tokens, torch.ones_like(tokens, dtype=torch.bool))
        (-advantage * logprobs.sum() / sum(LENGTHS)).backward()
    expected = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad(set_to_none=True)
    assert_same(found, expected)


def test_with_one_step_the_ratio_is_exactly_one_and_cpgd_is_the_plain_policy_gradient(
    policy: Policy, whole: Experience
) -> None:
    found, metrics = gradient(policy, whole, "cpgd")
    expected, _ = gradient(policy, whole, "pg")
    assert (metrics["policy/ratio_min"], metrics["policy/ratio_max"], metrics["policy/drift"]) == (1, 1, 0)
    assert_same(found, expected)


def test_the_order_of_prompts_and_rows_changes_no_gradient(policy: Policy, whole: Experience) -> None:
    order, prompts = torch.tensor([6, 1, 3, 0, 7, 2, 5, 4]), [2, 0, 3, 1]
    state = whole.state()
    for name in ("tokens", "mask", "advantages"):
        state[name] = state[name][order]
    place = torch.tensor([prompts.index(p) for p in range(4)])
    state["prompt_of"] = place[whole.prompt_of[order]]
    shuffled = Experience.from_state(state, [whole.prompts[p] for p in prompts])
    expected, metrics = gradient(policy, whole, tokens=120)
    found, others = gradient(policy, shuffled, tokens=120)
    assert_same(found, expected)
    assert others == pytest.approx(metrics, rel=1e-6, abs=1e-6)


def test_with_several_steps_the_first_one_still_has_ratio_exactly_one(
    policy: Policy, whole: Experience
) -> None:
    made, _ = learner(policy, tokens=120)
    rows = halves(whole)
    made.prepare(rows, 1)
    assert rows.old_logprobs is not None
    steps = list(made.update(rows, 1))
    # The recorder changes no weight, so this holds for every step.
    assert [(s["policy/ratio_min"], s["policy/ratio_max"]) for s in steps] == [(1.0, 1.0), (1.0, 1.0)]


def test_old_logprobs_are_not_computed_where_one_step_makes_them_unnecessary(
    policy: Policy, whole: Experience
) -> None:
    made, _ = learner(policy)
    rows = Experience.from_state(whole.state(), whole.prompts)
    made.prepare(rows, 1)
    assert rows.old_logprobs is None
    assert rows.reference_logprobs is None


def test_every_inner_epoch_takes_one_step_for_each_mini_batch(policy: Policy, whole: Experience) -> None:
    made, recorder = learner(policy, inner_epochs=3)
    rows = halves(whole)
    assert len(list(made.update(rows, 1))) == 6
    assert len(recorder.steps) == 6


def test_an_inner_epoch_visits_each_mini_batch_once_in_an_order_of_seed_and_iteration(policy: Policy) -> None:
    made, _ = learner(policy, inner_epochs=2)
    order = made._order(20, iteration=4)
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20))
    assert order == made._order(20, 4)
    assert order != made._order(20, 5)


def test_steps_that_are_done_are_skipped(policy: Policy, whole: Experience) -> None:
    made, _ = learner(policy)
    rows = halves(whole)
    all_steps = list(made.update(rows, 1))
    assert list(made.update(rows, 1, done=1)) == all_steps[1:]


def test_a_process_without_rows_takes_part_with_a_zero_gradient(
    policy: Policy, whole: Experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, metrics = gradient(policy, whole)
    original = Experience.split

    def split(self: Experience, *arguments: Any, **options: Any) -> list[Tensor]:
        return [*original(self, *arguments, **options), *[torch.zeros(0, dtype=torch.long)] * 2]

    monkeypatch.setattr(Experience, "split", split)
    found, others = gradient(policy, whole)
    assert_same(found, expected)
    assert others == pytest.approx(metrics, rel=1e-6, abs=1e-6)


def test_all_processes_run_as_many_forward_passes_as_the_one_with_the_most(
    policy: Policy, whole: Experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = learner(policy)
    monkeypatch.setattr(made.accelerator, "gather", lambda own: torch.cat([own, own + 2]))
    parts = made._micro_batches(whole, 0)
    assert [len(rows) for rows in parts] == [8, 0, 0]


class TestStep:
    """One weight, its gradient set by hand."""

    def step(self, most: int = 3) -> tuple[OptimizerStep, torch.nn.Parameter]:
        weight = torch.nn.Parameter(torch.tensor([1.0]))
        optimizer = torch.optim.SGD([weight], lr=0.5)
        return OptimizerStep(Accelerator(cpu=True), [weight], optimizer, Schedule(), 1.0, most), weight

    @pytest.mark.parametrize(
        ("loss", "slope"), [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan), (0.0, -math.inf)]
    )
    def test_a_step_that_is_not_finite_is_skipped_and_counted(self, loss: float, slope: float) -> None:
        step, weight = self.step()
        weight.grad = torch.tensor([slope])
        assert step(loss)["optimizer/skipped"] == 1
        assert weight.item() == 1.0
        assert weight.grad is None
        assert step.scheduler.count == 0

    def test_a_finite_step_is_taken_with_the_clipped_gradient(self) -> None:
        step, weight = self.step()
        weight.grad = torch.tensor([4.0])
        metrics = step(0.0)
        assert metrics == {
            "optimizer/grad_norm": 4.0,
            "optimizer/learning_rate": 0.5,
            "optimizer/skipped": 0.0,
            "optimizer/weights_changed": 1.0,
        }
        assert weight.item() == pytest.approx(0.5, abs=1e-5)
        assert step.scheduler.count == 1

    def test_too_many_in_a_row_end_the_run_and_a_finite_one_starts_the_count_anew(self) -> None:
        step, weight = self.step(most=2)
        for slope in (math.nan, 1.0, math.nan):
            weight.grad = torch.tensor([slope])
            step(0.0)
        weight.grad = torch.tensor([math.nan])
        with pytest.raises(Diverged, match=r"2 optimizer steps in a row .*training\.learning_rate"):
            step(0.0)


def test_metrics_of_micro_batches_are_added_and_extremes_reduced() -> None:
    def part(*values: float) -> dict[str, Any]:
        return dict(zip(("loss", "max/ratio", "min/ratio"), map(torch.tensor, values), strict=True))

    parts: Sequence[dict[str, Any]] = [
        part(0.25, 1.5, 0.5),
        part(0.5, 3.0, 0.75),
        part(0.0, -math.inf, math.inf),
    ]
    assert combine(parts, Accelerator(cpu=True)) == {"loss": 0.75, "max/ratio": 3.0, "min/ratio": 0.5}


def test_metrics_of_steps_are_averaged_except_extremes_and_the_count_of_skipped() -> None:
    names = ("objective/loss", "policy/ratio_max", "policy/ratio_min", "optimizer/skipped")
    steps = [
        dict(zip(names, values, strict=True)) for values in ((1.0, 2.0, 0.5, 1.0), (3.0, 1.5, 0.25, 1.0))
    ]
    assert average(steps) == dict(zip(names, (2.0, 2.0, 0.25, 2.0), strict=True))


def test_an_iteration_without_a_step_has_skipped_none() -> None:
    assert average([]) == {"optimizer/skipped": 0.0}
