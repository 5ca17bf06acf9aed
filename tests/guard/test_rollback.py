"""Snapshots that are restored exactly, and the scaled alpha."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mm_cpgd.guard.rollback import copy_state, restore_state, scale_alpha
from tests.fakes.guard import DRIFT, objective


def test_alpha_is_scaled_from_the_composed_value() -> None:
    composed = objective({"name": "kl", "coefficient": 0.1}, DRIFT)
    scaled = scale_alpha(composed, 4.0)
    assert [part.options.get("alpha") for part in scaled.regularizers] == [None, 0.04]
    assert [part.options.get("alpha") for part in composed.regularizers] == [None, 0.01]
    assert scaled.states is composed.states


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    """Take ``count`` steps on the sum of squares."""
    for _ in range(count):
        optimizer.zero_grad()
        sum((value**2).sum() for value in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.mark.parametrize("before", [0, 3])
def test_restoring_undoes_weights_and_moments_exactly(before: int) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    steps(model, optimizer, before)
    content = copy_state(dict(model.named_parameters()), optimizer)
    steps(model, optimizer, 2)
    expected = [value.clone() for value in model.parameters()]
    steps(model, optimizer, 5)
    restore_state(content, dict(model.named_parameters()), optimizer)
    steps(model, optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected, strict=True))
