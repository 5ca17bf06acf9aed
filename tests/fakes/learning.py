"""A learner whose optimizer records gradients, and comparisons of what it recorded."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig, TrainingConfig
from mm_cpgd.policy import Policy
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.learner import Learner
from mm_cpgd.training.optimizer import OptimizerStep

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
        TrainingConfig(inner_epochs=inner_epochs, micro_batch_tokens=tokens),
        accelerator,
        policy,
        policy,
        objective,
        step,
        seed=1,
    )
    return made, recorder


def gradient(
    policy: Policy, rows: Experience, recipe: str = "cpgd", tokens: int = 4096
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient and the metrics of an iteration of one step."""
    made, recorder = learner(policy, recipe, tokens)
    fresh = Experience.from_state(rows.state(), rows.prompts)
    (metrics,) = made.update(fresh, iteration=1)
    return recorder.steps[0], metrics


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    assert largest > 1e-3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6 * largest, msg=name)
