"""AdamW for little memory: torch's steps, exact means of rounded ones, and a state that survives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.guard.rollback import copy_state, restore_state
from mm_cpgd.training.optimizer import compact
from mm_cpgd.training.optimizer.compact import CompactAdamW, round_at_random

KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "8 bits": {"eight_bit": True},
    "offloaded": {"offload": True},
    "all": {"eight_bit": True, "offload": True, "stochastic": True},
}


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A matrix that is stored in 8 bits, one whose last block is incomplete, and a vector that is not."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((64, 128), (70, 61), (40,))
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def gradients(like: list[nn.Parameter], step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(one.shape, generator=generator).to(one.dtype) for one in like]


def groups(own: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": own[:2], "lr": 1e-2, "weight_decay": 0.1},
        {"params": own[2:], "lr": 2e-2, "weight_decay": 0.0},
    ]


def take(optimizer: torch.optim.Optimizer, own: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(own, gradients(own, step), strict=True):
            parameter.grad = gradient
        optimizer.step()


def test_in_float32_it_is_torchs_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "CHUNK", 512)
    usual, own = parameters(), parameters()
    take(torch.optim.AdamW(groups(usual), betas=(0.8, 0.95)), usual, range(20))
    take(CompactAdamW(groups(own), betas=(0.8, 0.95)), own, range(20))
    for one, other in zip(own, usual, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_in_8_bits_its_steps_are_close_to_torchs_and_its_moments_a_quarter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compact, "CHUNK", 512)
    usual, own, first = parameters(), parameters(), parameters()
    take(torch.optim.AdamW(groups(usual)), usual, range(20))
    optimizer = CompactAdamW(groups(own), eight_bit=True)
    take(optimizer, own, range(20))
    for one, other, start in zip(own, usual, first, strict=True):
        assert (one - other).norm() <= 0.05 * (other - start).norm()
    state = optimizer.state[own[0]]
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.uint8
    assert sum(value.nbytes for key, value in state.items() if key != "step") <= 0.26 * 8 * own[0].numel()
    assert optimizer.state[own[2]]["exp_avg"].dtype == torch.float32


def test_moments_of_bfloat16_weights_are_float32() -> None:
    own = parameters(torch.bfloat16)
    optimizer = CompactAdamW(groups(own))
    take(optimizer, own, range(2))
    assert {one.dtype for one in own} == {torch.bfloat16}
    assert {optimizer.state[one]["exp_avg_sq"].dtype for one in own} == {torch.float32}


def moved(stochastic: bool) -> Tensor:
    """Return how far bfloat16 weights of 0.01 move in 200 steps of 1e-6."""
    weights = nn.Parameter(torch.full((4096,), 0.01, dtype=torch.bfloat16))
    start = weights.detach().float().clone()
    settings = [{"params": [weights], "lr": 1e-6}]
    optimizer = CompactAdamW(settings, stochastic=stochastic) if stochastic else torch.optim.AdamW(settings)
    for _ in range(200):
        weights.grad = torch.ones_like(weights)
        optimizer.step()
    return weights.detach().float() - start


def test_steps_below_the_resolution_are_lost_unless_rounding_is_stochastic() -> None:
    assert (moved(stochastic=False) == 0).all()
    # 200 steps of -1e-6, as a mean over 4,096 weights; a single one moves in steps of 6e-5.
    mean = float(moved(stochastic=True).mean())
    assert mean == pytest.approx(-2e-4, rel=0.05)


def test_rounding_at_random_gives_one_of_both_neighbours_with_the_exact_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    for value, low, high in ((1.002, 1.0, 1.0078125), (-1.002, -1.0078125, -1.0)):
        found = round_at_random(torch.full((200_000,), value), generator).float()
        assert found.unique().tolist() == [low, high]
        assert abs(float(found.double().mean()) - value) <= 0.01 * (high - low)
    exact = torch.tensor([0.0, 1.0, -2.5, 0.00390625])
    assert torch.equal(round_at_random(exact, generator).float(), exact)


def test_rounding_is_the_same_on_every_process_and_uses_no_generator_of_the_run() -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        own = parameters(torch.bfloat16)
        take(CompactAdamW(groups(own), stochastic=True), own, range(3))
        assert torch.equal(torch.get_rng_state(), state)
        results.append(own)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_loaded_state_continues_as_if_never_stopped(options: dict[str, Any], tmp_path: Any) -> None:
    whole, first, second = (parameters(torch.bfloat16) for _ in range(3))
    take(CompactAdamW(groups(whole), **options), whole, range(6))
    before = CompactAdamW(groups(first), **options)
    take(before, first, range(3))
    save_state(tmp_path / "state.safetensors", before.state_dict())
    with torch.no_grad():
        for one, other in zip(second, first, strict=True):
            one.copy_(other)
    after = CompactAdamW(groups(second), **options)
    after.load_state_dict(load_state(tmp_path / "state.safetensors"))
    take(after, second, range(3, 6))
    for one, other in zip(second, whole, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_snapshot_of_the_guard_restores_weights_and_moments(options: dict[str, Any]) -> None:
    own = parameters(torch.bfloat16)
    named = {str(number): one for number, one in enumerate(own)}
    optimizer = CompactAdamW(groups(own), **options)
    take(optimizer, own, range(2))
    content = copy.deepcopy(copy_state(named, optimizer))
    take(optimizer, own, range(2, 5))
    wanted = [one.detach().clone() for one in own]
    restore_state(content, named, optimizer)
    take(optimizer, own, range(2, 5))
    for one, other in zip(own, wanted, strict=True):
        assert torch.equal(one, other)


def test_weights_without_a_gradient_stay_as_they_are() -> None:
    own = parameters()
    optimizer = CompactAdamW(groups(own))
    take(optimizer, own, range(1))
    before = own[0].detach().clone()
    own[0].grad = None
    optimizer.step()
    assert torch.equal(own[0], before)
    assert float(optimizer.state[own[0]]["step"]) == 1


def test_loading_an_empty_state_leaves_it_empty() -> None:
    optimizer = CompactAdamW(groups(parameters()))
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(optimizer.state) == 0
