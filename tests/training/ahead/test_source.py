"""When batches are begun, how old they are, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import PartConfig
from mm_cpgd.errors import UserError
from mm_cpgd.interrupt import ShouldStop, never
from mm_cpgd.training.ahead.source import AheadSource, check_ahead
from mm_cpgd.training.experience import Collected, Experience
from mm_cpgd.training.setup import build_run_objective, build_source
from tests.paths import ROOT


def collected() -> Collected:
    nothing = torch.zeros(0)
    experience = Experience([], [], nothing, nothing, nothing, nothing, nothing, [])
    return Collected(experience, {"seconds/reward": 0.5, "seconds/rollout": 9.0})


class Batches:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.begun: list[list[int]] = []
        self.most = 0

    def __contains__(self, iteration: int) -> bool:
        return iteration in self.held

    def __len__(self) -> int:
        return len(self.held)

    def begin(self, iterations: Sequence[int], should_stop: ShouldStop) -> float:
        assert not self.held
        self.held = list(iterations)
        self.begun.append(self.held[:])
        return 0.0

    def take(self, iteration: int, should_stop: ShouldStop) -> Collected:
        self.held.remove(iteration)
        return collected()

    def settle(self, should_stop: ShouldStop) -> None:
        pass

    def discard(self) -> None:
        self.held.clear()

    def close(self) -> None:
        self.discard()


class Foreground:
    """A collector that notes the iterations for which it sampled."""

    def __init__(self) -> None:
        self.sampled: list[int] = []

    def collect(self, iteration: int, should_stop: ShouldStop = never) -> Collected:
        self.sampled.append(iteration)
        return collected()


def source(ahead: int, iterations: int = 7) -> tuple[AheadSource, Batches, Foreground]:
    batches, foreground = Batches(), Foreground()
    made: Any = foreground
    return AheadSource(made, batches, ahead, iterations), batches, foreground


AGES = [(1, [0, 1, 1, 1, 1, 1, 1]), (2, [0, 1, 2, 1, 2, 1, 2]), (3, [0, 1, 2, 3, 1, 2, 3]), (9, [*range(7)])]


@pytest.mark.parametrize(("ahead", "expected"), AGES)
def test_no_batch_is_older_than_ahead_and_no_more_than_ahead_are_held(
    ahead: int, expected: list[int]
) -> None:
    made, batches, foreground = source(ahead)
    ages = []
    for iteration in range(1, 8):
        ages.append(made.collect(iteration).metrics["rollout/staleness"])
        assert len(batches) <= ahead
    assert ages == expected
    assert foreground.sampled == [1]
    # Each iteration's batch is sampled once, and none beyond the last iteration.
    assert [one for begun in batches.begun for one in begun] == [2, 3, 4, 5, 6, 7]


def test_after_batches_are_dropped_the_next_is_sampled_with_the_present_weights() -> None:
    made, _, foreground = source(2)
    ages = []
    for iteration in range(1, 6):
        ages.append(made.collect(iteration).metrics["rollout/staleness"])
        if iteration == 2:
            made.discard()
    assert ages == [0, 1, 0, 1, 2]
    assert foreground.sampled == [1, 3]


def test_batches_of_other_iterations_are_dropped() -> None:
    made, batches, foreground = source(2)
    made.collect(1)
    made.collect(5)
    assert foreground.sampled == [1, 5]
    assert batches.held == [6, 7]


def test_the_time_of_rewards_is_what_the_iteration_waited_for_them() -> None:
    made, _, _ = source(1)
    first, second = made.collect(1).metrics, made.collect(2).metrics
    assert (first["seconds/reward"], second["seconds/reward"]) == (0.5, 0.0)
    assert second["seconds/rollout"] < 0.5


def test_without_ahead_the_collector_itself_is_the_source() -> None:
    made: Any = Foreground()
    learner: Any = None
    assert build_source(RolloutConfig(), made, learner, 3)[0] is made


def objective(**parts: Any) -> Objective:
    config = load_config(ROOT / "configs" / "quickstart.yaml")
    algorithm = config.algorithm.model_copy(update=parts)
    return build_run_objective(config.model_copy(update={"algorithm": algorithm}))


def vllm(**settings: Any) -> RolloutConfig:
    return RolloutConfig.model_validate({"engine": "vllm", "ahead": 1, "vllm": {"sleep": False}, **settings})


REFUSED: list[tuple[RolloutConfig, dict[str, Any], str]] = [
    (vllm(top_p=0.9), {}, "does not report which tokens its cuts left"),
    (vllm(min_p=0.1, cuts="reweight"), {}, "does not report which tokens its cuts left"),
    (vllm(vllm={"sleep": True}), {}, "rollout.vllm.sleep"),
    (vllm(vllm={"sleep": False, "tensor_parallel": 2}), {}, "collective operations"),
    (vllm(), {"selection": [PartConfig(name="dynamic_sampling")]}, "dynamic_sampling"),
    (vllm(), {"prompts": PartConfig(name="variance_aware")}, "algorithm.prompts"),
    (vllm(), {"token_weights": [PartConfig(name="forking_tokens")]}, "forking_tokens, which needs a forward"),
]  # fmt: skip


@pytest.mark.parametrize(("rollout", "parts", "message"), REFUSED)
def test_what_needs_something_that_is_not_there_in_the_background_is_refused(
    rollout: RolloutConfig, parts: dict[str, Any], message: str
) -> None:
    made = objective(**parts)
    with pytest.raises(UserError, match=rf"rollout\.ahead=1 with .*{message}.*set rollout\.ahead=0"):
        check_ahead(rollout, made)
    check_ahead(rollout.model_copy(update={"ahead": 0}), made)
    check_ahead(rollout.model_copy(update={"engine": "local"}), made)


def test_all_obstacles_are_named_in_one_message() -> None:
    with pytest.raises(UserError, match=r"top_p.*; and with .*sleep"):
        check_ahead(vllm(top_p=0.5, vllm={"sleep": True}), objective())


@pytest.mark.parametrize("ahead", [0, 1])
def test_new_weights_in_the_middle_of_a_completion_are_refused(ahead: int) -> None:
    with pytest.raises(UserError, match="swap_midway is not supported"):
        check_ahead(RolloutConfig(ahead=ahead, swap_midway=True), objective())


def test_a_server_may_have_sleep_and_tensor_parallel_of_its_own() -> None:
    check_ahead(vllm(vllm={"mode": "server", "sleep": True, "tensor_parallel": 4}), objective())


def test_the_default_recipe_can_be_sampled_in_the_background() -> None:
    check_ahead(vllm(temperature=1.3), objective())
