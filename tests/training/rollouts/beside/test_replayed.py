"""Rows of earlier iterations beside an iteration's rollouts, and the weight of their loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mm_cpgd.algorithms.by_row.entries import Entries
from mm_cpgd.algorithms.inputs.schedules import Schedule
from mm_cpgd.config.loading import load_config
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.rollout import Completion
from mm_cpgd.training.experience import Experience, MicroBatch
from mm_cpgd.training.rollouts.beside.elsewhere import Source, losses_elsewhere, surrogate_alone
from mm_cpgd.training.rollouts.beside.replayed import add_rows, own_entries, run_sources, stacked, weight_of
from mm_cpgd.training.setup import build_run_objective
from tests.fakes.objectives import build


def stored(*lengths: int) -> Entries:
    count = len(lengths)
    return Entries(
        rows=torch.arange(count),
        iterations=torch.ones(count, dtype=torch.long),
        rewards=torch.ones(count, dtype=torch.float64),
        advantages=torch.ones(count, dtype=torch.float64),
        lengths=torch.tensor(lengths),
        tokens=torch.full((sum(lengths),), 7, dtype=torch.int32),
        logprobs=torch.full((sum(lengths),), -0.5),
    )


def prompt(number: int) -> EncodedPrompt:
    return EncodedPrompt(torch.tensor([number]), torch.zeros(1, 1, dtype=torch.long))


def rollouts() -> Experience:
    return Experience(
        examples=[4],
        prompts=[prompt(4)],
        prompt_of=torch.tensor([0, 0]),
        tokens=torch.ones(2, 3, dtype=torch.long),
        mask=torch.ones(2, 3, dtype=torch.bool),
        advantages=torch.tensor([1.0, -1.0]),
        mini_batch=torch.tensor([0, 0]),
        lengths=[torch.tensor([3.0, 3.0])],
        facts={"prompt_of": torch.tensor([0, 0]), "rewards": torch.tensor([1.0, 0.0])},
    )


def test_rows_are_appended_with_their_own_prompts_and_log_probabilities() -> None:
    made = rollouts()
    where = torch.zeros(2, dtype=torch.long)
    add_rows(made, stored(5, 2), torch.tensor([0.6, 0.2]), where, [9], [prompt(9)], where, number=2)
    assert made.examples == [4, 9]
    assert made.prompt_of.tolist() == [0, 0, 1, 1]
    assert made.source is not None
    assert made.source.tolist() == [0, 0, 2, 2]
    assert made.tokens.shape == (4, 5)
    assert made.mask.sum(1).tolist() == [3, 3, 5, 2]
    assert made.given_logprobs is not None
    assert made.given_logprobs.sum(1).tolist() == [0, 0, -2.5, -1]
    assert made.sampled_mask.sum() == 6
    assert made.facts is not None
    assert made.facts["prompt_of"].tolist() == [0, 0, -1, -1]
    again = Experience.from_state(made.state(), made.prompts)
    assert repr(again.state()) == repr(made.state())


def test_a_process_without_entries_has_the_same_tables() -> None:
    made, nothing = rollouts(), torch.zeros(0, dtype=torch.long)
    add_rows(made, stored(), nothing.float(), nothing, [], [], nothing, number=1)
    assert len(made) == 2
    assert made.source is not None
    assert made.given_logprobs is not None
    assert made.given_logprobs.shape == made.tokens.shape


def test_rows_of_two_widths_are_stacked() -> None:
    assert stacked(torch.ones(1, 2), torch.ones(2, 3)).tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]


def test_completions_are_taken_up_with_their_places_rows_and_rewards() -> None:
    groups = [[Completion(torch.full((n,), n), -torch.ones(n), "", finished=True) for n in (1, 2)]] * 2
    admitted = torch.tensor([[True, True], [False, True], [False, True]])
    mine, rows = torch.tensor([True, False, True]), torch.tensor([30, 31, 32])
    rewards = torch.tensor([[0.5, 1.0], [0.0, 0.0], [0.0, 2.0]])
    places, found = own_entries(groups, admitted, mine, rows, rewards, rewards - 1, iteration=3)
    assert places == [0, 1, 5]
    assert found.rows.tolist() == [30, 30, 32]
    assert found.rewards.tolist() == [0.5, 1.0, 2.0]
    assert found.advantages.tolist() == [-0.5, 0.0, 1.0]
    assert found.tokens.tolist() == [1, 2, 2, 2, 2]
    assert found.iterations.tolist() == [3, 3, 3]


def test_the_weight_rises_by_a_cosine_and_fades_by_one() -> None:
    rising = weight_of({"from": 0.0, "to": 1.0, "shape": "cosine"})
    falling = weight_of({"from": 1.0, "to": 0.0, "shape": "cosine"})
    assert isinstance(rising, Schedule)
    assert isinstance(falling, Schedule)
    expected = [0, 0.146447, 0.5, 1]
    assert [rising.at(t) for t in (0, 0.25, 0.5, 1)] == pytest.approx(expected, abs=1e-6)
    assert [falling.at(t) for t in (0, 0.25, 0.5, 1)] == pytest.approx([1 - c for c in expected], abs=1e-6)


@pytest.mark.parametrize("value", [-1.0, {"from": 1}, {"from": -1, "to": 1}, {"from": 0, "to": 1, "by": 2}])
def test_a_weight_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"algorithm\.replay\.weight = .* is not possible"):
        weight_of(value)


def test_sources_are_numbered_and_have_the_runs_surrogate_alone() -> None:
    config = load_config(
        "quickstart", ["algorithm.recipe=spear", "algorithm.regularizers=[{name: policy_drift}]"]
    )
    (source,) = run_sources(config, build_run_objective(config))
    assert source.name == "replay"
    assert source.metric_names == ["replay/loss", "replay/nll", "replay/clip_fraction"]
    assert [part.name for part in source.objective.parts] == [
        "group_mean",
        "ppo_clip",
        "clip_cov",
        "constant",
    ]
    assert [source.weight_at(one) for one in (1, 48)] == [0, 1]
    both = load_config(
        "quickstart", ["algorithm.recipe=spear", "algorithm.tempered={temperature: {name: aepo}}"]
    )
    assert [one.name for one in run_sources(both, build_run_objective(both))] == ["tempered", "replay"]


LENGTHS = torch.tensor([3.0, 2.0])
GIVEN = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, -1.2, 0.0]], dtype=torch.float64)
RATIOS = torch.tensor([[0.1, 0.4, -0.3], [-0.1, 0.2, 0.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([0.6, 0.25], dtype=torch.float64)


def gradient(source: Source, given: Tensor, old: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logprobs = (GIVEN + RATIOS).requires_grad_()
    mask = torch.tensor([[True] * 3, [True, True, False]])
    known: Any = SimpleNamespace(
        source=torch.ones(2), given_logprobs=given, advantages=ADVANTAGES, mask=mask, prepared=None
    )
    batch: MicroBatch = known
    (loss,), metrics = losses_elsewhere([source], batch, logprobs, old, [LENGTHS], 1)
    (found,) = torch.autograd.grad(loss, logprobs)
    return found, metrics


@pytest.mark.parametrize("from_old", [False, True])
def test_the_gradient_of_replayed_rows_is_ppos_from_what_they_are_compared_with(from_old: bool) -> None:
    loss = surrogate_alone(build(recipe="spear"))
    source = Source("replay", loss, 0.5, from_old=from_old, more=("clip_fraction",))
    other = torch.full_like(GIVEN, -9.0)
    found, metrics = gradient(source, *((other, GIVEN) if from_old else (GIVEN, other)))
    expected = torch.zeros_like(found)
    for row, t in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        ratio = RATIOS[row, t].exp()
        # Of two completions, by the constant of 64 tokens; beyond 1.28 a positive advantage has no gradient.
        expected[row, t] = 0.0 if ratio > 1.28 else -0.5 * ratio * ADVANTAGES[row] / (2 * 64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert metrics["replay/clip_fraction"] == pytest.approx(1 / 5)
