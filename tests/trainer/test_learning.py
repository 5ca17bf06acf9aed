"""From experience to gradients and optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from data.generated import generate
from mm_cpgd.algorithms.objective import build_objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig, PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.training.experience import Experience, pad_tokens
from mm_cpgd.training.learner import Learner, average, combine
from mm_cpgd.training.optimizer import Diverged, OptimizerStep

LENGTHS = [5, 1, 3, 8, 2, 2, 7, 4]
ADVANTAGES = [1.0, -0.5, 0.25, -1.0, 2.0, 0.0, -0.75, 0.5]


class Recorder:
    """An optimizer that keeps the gradients it is given and changes nothing."""

    def __init__(self, policy: Policy) -> None:
        self.trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self.param_groups = [{"lr": 0.1}]
        self.steps: list[dict[str, Tensor]] = []

    def step(self) -> None:
        self.steps.append({n: p.grad.clone() for n, p in self.trained.items() if p.grad is not None})

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.trained.values():
            parameter.grad = None


class Schedule:
    def __init__(self) -> None:
        self.count = 0

    def step(self) -> None:
        self.count += 1


@pytest.fixture(scope="module")
def policy(tiny_folder: Path) -> Policy:
    return load_policy(PolicyConfig(model=str(tiny_folder))).train()


@pytest.fixture(scope="module")
def whole(policy: Policy) -> Experience:
    """Eight completions of very different lengths for four prompts, with and without a picture."""
    examples = generate(("shapes", "clock", "table", "lengths"), 4, seed=5)
    generator = torch.Generator().manual_seed(0)
    completions = [torch.randint(20, 300, (length,), generator=generator) for length in LENGTHS]
    tokens, mask = pad_tokens(completions)
    return Experience(
        examples=[0, 1, 2, 3],
        prompts=[policy.encoder.encode(example) for example in examples],
        prompt_of=torch.arange(8) // 2,
        tokens=tokens,
        mask=mask,
        advantages=torch.tensor(ADVANTAGES),
        mini_batch=torch.zeros(8, dtype=torch.long),
        lengths=[torch.tensor(LENGTHS).float()],
    )


def halves(whole: Experience) -> Experience:
    """The same in two mini-batches."""
    state = {**whole.state(), "mini_batch": torch.arange(8) // 4}
    state["lengths"] = [torch.tensor(LENGTHS[:4]).float(), torch.tensor(LENGTHS[4:]).float()]
    return Experience.from_state(state, whole.prompts)


def learner(
    policy: Policy, recipe: str = "cpgd", tokens: int = 4096, inner_epochs: int = 1
) -> tuple[Learner, Recorder]:
    config = AlgorithmConfig(**load_recipe(recipe))
    objective = build_objective(config, completions=2, max_new_tokens=8)
    recorder = Recorder(policy)
    accelerator = Accelerator(cpu=True)
    step = OptimizerStep(accelerator, list(recorder.trained.values()), recorder, Schedule(), 1e9, 3)
    made = Learner(
        accelerator,
        policy,
        policy,
        objective,
        step,
        inner_epochs=inner_epochs,
        micro_batch_tokens=tokens,
        seed=1,
    )
    return made, recorder


def gradient(
    policy: Policy, rows: Experience, recipe: str = "cpgd", tokens: int = 4096
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient and the metrics of an iteration of one step."""
    made, recorder = learner(policy, recipe, tokens)
    fresh = Experience.from_state(rows.state(), rows.prompts)
    made.prepare(fresh, 1)
    (metrics,) = made.learn(fresh, iteration=1)
    return recorder.steps[0], metrics


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    assert largest > 1e-3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6 * largest, msg=name)


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
    steps = list(made.learn(rows, 1))
    # The recorder changes no weight, so this holds for every step.
    assert [(s["policy/ratio_min"], s["policy/ratio_max"]) for s in steps] == [(1.0, 1.0), (1.0, 1.0)]


def test_old_logprobs_are_not_computed_where_one_step_makes_them_needless(
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
    made.prepare(rows, 1)
    assert len(list(made.learn(rows, 1))) == 6
    assert len(recorder.steps) == 6


def test_an_inner_epoch_visits_each_mini_batch_once_in_an_order_of_seed_and_iteration(policy: Policy) -> None:
    made, _ = learner(policy, inner_epochs=2)
    order = made._order(20, iteration=4)
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20))
    assert order == made._order(20, 4)
    assert order != made._order(20, 5)


def test_steps_that_are_done_are_passed_over(policy: Policy, whole: Experience) -> None:
    made, _ = learner(policy)
    rows = halves(whole)
    made.prepare(rows, 1)
    all_steps = list(made.learn(rows, 1))
    assert list(made.learn(rows, 1, done=1)) == all_steps[1:]


def test_a_process_without_rows_runs_along_with_a_zero_gradient(
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
    parts = made._parts(whole, 0)
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
    def test_what_is_not_finite_is_skipped_and_counted(self, loss: float, slope: float) -> None:
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


def test_metrics_of_micro_batches_are_added_but_extremes_are_extremes() -> None:
    def part(*values: float) -> dict[str, Any]:
        return dict(zip(("loss", "max/ratio", "min/ratio"), map(torch.tensor, values), strict=True))

    parts: Sequence[dict[str, Any]] = [
        part(0.25, 1.5, 0.5),
        part(0.5, 3.0, 0.75),
        part(0.0, -math.inf, math.inf),
    ]
    assert combine(parts, Accelerator(cpu=True)) == {"loss": 0.75, "max/ratio": 3.0, "min/ratio": 0.5}


def test_metrics_of_steps_are_averaged_but_extremes_and_the_count_of_skipped() -> None:
    names = ("objective/loss", "policy/ratio_max", "policy/ratio_min", "optimizer/skipped")
    steps = [
        dict(zip(names, values, strict=True)) for values in ((1.0, 2.0, 0.5, 1.0), (3.0, 1.5, 0.25, 1.0))
    ]
    assert average(steps) == dict(zip(names, (2.0, 2.0, 0.25, 2.0), strict=True))


def test_an_iteration_without_a_step_has_skipped_none() -> None:
    assert average([]) == {"optimizer/skipped": 0.0}
