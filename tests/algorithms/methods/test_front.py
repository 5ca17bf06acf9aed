"""Dynamic reward weighting: hypervolumes, influences, and what they do to rewards and advantages."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.methods.front import Front, Point, hypervolume, not_dominated
from mm_cpgd.algorithms.methods.influence import Influence, advantages_of_rules, bounded
from mm_cpgd.algorithms.objective import Objective
from tests.fakes.objectives import build, message

FRONT: list[Point] = [(0.6, 0.2), (0.3, 0.5)]
ORIGIN = (0.0, 0.0)


def outcomes(components: Tensor, weights: tuple[float, ...] = (1.0, 0.5)) -> Outcomes:
    """Outcomes of rules (P, G, R) with these weights."""
    own = torch.tensor(weights, dtype=torch.float64)
    known = Outcomes.of_rewards((components * own).sum(2))
    return replace(known, components=components, weights=own, rules=tuple("abc"[: len(weights)]))


def scores(seed: int = 0, rules: int = 2) -> Tensor:
    return torch.rand(6, 4, rules, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def front(points: list[Point], reference: Point = ORIGIN) -> Front:
    made = Front()
    made.reference, made.points = reference, points
    return made


def test_the_worked_volumes_and_scales() -> None:
    assert hypervolume(FRONT, ORIGIN) == pytest.approx(0.21)
    assert hypervolume([*FRONT, (0.5, 0.4)], ORIGIN) == pytest.approx(0.25)
    wider = front(FRONT)
    wider.add((0.5, 0.4))
    assert wider.scale == pytest.approx(0.559968, abs=1e-6)
    assert len(wider.points) == 3
    same = front(FRONT)
    same.add((0.2, 0.2))
    assert (same.scale, same.points) == (0.5, FRONT)


@pytest.mark.parametrize("rules", [1, 2, 3, 4])
def test_a_volume_does_not_depend_on_order_or_dominated_points_and_is_that_of_a_grid(rules: int) -> None:
    generator = torch.Generator().manual_seed(rules)
    points = [tuple(map(float, p)) for p in torch.randint(0, 5, (4, rules), generator=generator).tolist()]
    expected = sum(
        any(all(c < p for c, p in zip(cell, point, strict=True)) for point in points)
        for cell in itertools.product(range(5), repeat=rules)
    )
    reference = (0.0,) * rules
    for order in itertools.permutations(points):
        assert hypervolume(order, reference) == pytest.approx(expected)
    assert hypervolume(not_dominated(points), reference) == pytest.approx(expected)


def test_the_first_iteration_is_the_reference_and_the_scale_stays_in_its_range() -> None:
    made = Front(smoothing=0.0, margin=0.1)
    made.note(outcomes(torch.full((2, 2, 2), 0.5, dtype=torch.float64)))
    assert (made.scale, made.points) == (1.0, [])
    assert made.reference == pytest.approx((0.4, 0.4))
    for seed in range(20):
        made.note(outcomes(scores(seed)))
        assert 0.5 <= made.scale < 2
    assert made.points == not_dominated(made.points)


def test_a_rule_of_negative_weight_is_to_fall_and_one_of_weight_0_does_not_count() -> None:
    made = Front(smoothing=0.0, margin=0.0)
    low = torch.tensor([[[0.5, 0.5, 0.9]]], dtype=torch.float64)
    made.note(outcomes(low, (1.0, -1.0, 0.0)))
    assert made.reference == (0.5, -0.5)
    made.note(outcomes(low * torch.tensor([1.2, 0.8, 0.0], dtype=torch.float64), (1.0, -1.0, 0.0)))
    assert made.metrics()["hypervolume"] == pytest.approx(0.01)


def test_an_iteration_without_scores_is_left_out() -> None:
    made, other = Front(), Influence()
    nothing = outcomes(torch.full((2, 3, 2), math.nan, dtype=torch.float64))
    made.note(nothing)
    assert made.reference is None
    other.note(nothing)
    assert other.weights(["a", "b"]).tolist() == [0.5, 0.5]


def test_the_worked_influences_and_weights() -> None:
    gradients = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.5, 0.5]], dtype=torch.float64)
    influence = (gradients @ gradients.T).sum(1)
    assert influence.tolist() == pytest.approx([1.3, 1.7, -0.1])
    memory = Influence(step=0.5, floor=0.0)
    memory.learn(["a", "b", "c"], influence)
    expected = [0.367919, 0.449378, 0.182703]
    assert memory.weights(["a", "b", "c"]).tolist() == pytest.approx(expected, abs=1e-6)


def test_influences_are_means_of_products_of_the_rules_own_advantages() -> None:
    found = outcomes(scores())
    a, b = ((found.components[..., j] - found.components[..., j].mean(1, keepdim=True)) for j in (0, 1))
    expected = [[float((x * y).mean()) for y in (a, b)] for x in (a, b)]
    torch.testing.assert_close(Influence().products(found), torch.tensor(expected, dtype=torch.float64))
    rewards = found.rewards.clone()
    rewards[0] = math.nan
    own = advantages_of_rules(rewards, found.components, found.weights.sign())
    assert not own[:, 0].any()
    assert own[:, 1].any()


def test_several_iterations_make_one_step_of_their_mean() -> None:
    once, twice = Influence(step=1.0, floor=0.0), Influence(step=1.0, every=2, floor=0.0)
    once.learn(["a", "b"], torch.tensor([0.3, 0.1], dtype=torch.float64))
    twice.learn(["a", "b"], torch.tensor([0.5, 0.0], dtype=torch.float64))
    assert twice.weights(["a", "b"]).tolist() == [0.5, 0.5]
    again = Influence(step=1.0, every=2, floor=0.0)
    again.load_state_dict(twice.state_dict())
    again.learn(["a", "b"], torch.tensor([0.1, 0.2], dtype=torch.float64))
    torch.testing.assert_close(again.weights(["a", "b"]), once.weights(["a", "b"]))


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.3, 0.9])
def test_weights_have_the_sum_1_and_a_floor(floor: float) -> None:
    for logs in ([0.0, 0.0, 0.0], [9.0, 0.0, -9.0], [5.0, 4.9, -800.0]):
        found = bounded(torch.tensor(logs, dtype=torch.float64).softmax(0), floor)
        assert found.sum().item() == pytest.approx(1)
        assert found.min().item() >= min(floor, 1 / 3) - 1e-12
    assert bounded(torch.tensor([0.6, 0.4]), 0.05).tolist() == pytest.approx([0.6, 0.4])


def test_a_single_rule_keeps_its_weight() -> None:
    objective = build(recipe="drw_influence")
    found = outcomes(scores(rules=1), (1.0,))
    for _ in range(3):
        objective.note(objective.weigh(found))
    torch.testing.assert_close(objective.weigh(found).rewards, found.rewards)


def test_rules_keep_the_signs_of_their_weights_and_shaping_stays() -> None:
    objective = build(recipe="drw_influence")
    shaping = torch.full((6, 4), -0.25, dtype=torch.float64)
    mixed = objective.weigh(replace(outcomes(scores(rules=3), (2.0, -1.0, 0.0)), shaping=shaping))
    assert mixed.weights.tolist() == [0.5, -0.5, 0.0]
    expected = 0.5 * mixed.components[..., 0] - 0.5 * mixed.components[..., 1] - 0.25
    torch.testing.assert_close(mixed.rewards, expected)


def scaled(objective: Objective, scale: float) -> Tensor:
    """Advantages of the same outcomes, with this scale of the front."""
    memory = objective.memories["Front"]
    assert isinstance(memory, Front)
    memory.scale = scale
    weighed = objective.weigh(outcomes(scores()))
    return objective.advantages(weighed.rewards, weighed)


@pytest.mark.parametrize("advantage", ["rloo", "grpo", "group_mean", "gdpo"])
def test_scaled_advantages_are_scaled_whatever_their_normalisation(advantage: str) -> None:
    objective = build(recipe="drw_hypervolume", advantage={"name": advantage})
    torch.testing.assert_close(scaled(objective, 1.5), 1.5 * scaled(objective, 1.0))


def test_scaled_rewards_change_a_difference_and_not_a_normalised_one() -> None:
    rewards = {"name": "hypervolume_scale", "apply": "rewards"}
    objective = build(recipe="drw_hypervolume", reward_weights=rewards)
    torch.testing.assert_close(scaled(objective, 1.5), 1.5 * scaled(objective, 1.0))
    normalised = replace(objective, advantage=build(recipe="grpo").advantage)
    torch.testing.assert_close(scaled(normalised, 1.5), scaled(normalised, 1.0), rtol=1e-5, atol=1e-5)
    for advantage in ({"name": "grpo"}, {"name": "cpgd"}, {"name": "gdpo"}):
        text = message(recipe="drw_hypervolume", reward_weights=rewards, advantage=advantage)
        assert "apply = 'rewards' has no effect" in text


@pytest.mark.parametrize("recipe", ["drw_hypervolume", "drw_influence"])
def test_memories_are_restored_with_the_objective(recipe: str) -> None:
    objective, again = build(recipe=recipe), build(recipe=recipe)
    for seed in range(4):
        objective.note(objective.weigh(outcomes(scores(seed))))
    again.load_state_dict(objective.state_dict())
    assert again.memory_metrics() == objective.memory_metrics()
    assert repr(again.state_dict()) == repr(objective.state_dict())
    found = outcomes(scores(9))
    assert torch.equal(again.weigh(found).rewards, objective.weigh(found).rewards)
