"""Fused layers: values and gradients of the layers themselves, no further from exact ones than theirs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data import Example
from mm_cpgd.policy import Policy
from mm_cpgd.policy.checkpointing import checkpoint_layers
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix import forward, fused_layers
from tests.fakes.shared_prompts import Case, case


@pytest.fixture
def policy(tiny_policy: Policy) -> Policy:
    return copy.deepcopy(tiny_policy).train()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each packed sequence, whether its layers were fused."""
    found: list[bool] = []

    def noted(*args: Any) -> Any:
        result = fused_layers.fused_layers(*args)
        found.append(result is not None)
        return result

    monkeypatch.setattr(forward, "fused_layers", noted)
    return found


def results(policy: Policy, batch: Case) -> tuple[Tensor, dict[str, Tensor]]:
    policy.zero_grad(set_to_none=True)
    values, entropies = policy(*batch, entropy_gradient=True)
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    ((values + 0.1 * entropies) * weights).sum().backward()
    return values.detach(), {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def error(found: Tensor, exact: Tensor) -> Tensor:
    return (found.double() - exact).norm() / exact.norm()


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_values_and_gradients_are_no_further_from_exact_ones_than_the_layers(
    policy: Policy,
    examples: list[Example],
    calls: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    checkpointing: bool,
    biases: bool,
) -> None:
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    if not biases:
        for layer in language_model(policy.model).layers:
            for name in ("q_proj", "k_proj", "v_proj"):
                getattr(layer.self_attn, name).bias = None
    batch = case(policy, examples)
    found = results(policy, batch)
    assert calls == [True]
    monkeypatch.setattr(forward, "fused_layers", lambda *args: None)
    usual = results(policy, batch)
    exact = results(copy.deepcopy(policy).double(), batch)
    assert found[1].keys() == usual[1].keys() == exact[1].keys()
    torch.testing.assert_close(found[0], usual[0], rtol=1e-5, atol=1e-5)
    for name, wanted in exact[1].items():
        assert error(found[1][name], wanted) < max(2 * error(usual[1][name], wanted), 1e-6), name


def test_values_without_gradients_are_those_of_the_update_to_the_bit(
    policy: Policy, examples: list[Example], calls: list[bool]
) -> None:
    batch = case(policy, examples)
    with torch.no_grad():
        old, _ = policy(*batch)
    new, _ = policy(*batch)
    assert torch.equal(old, new)
    assert calls == [True, True]


@pytest.mark.parametrize("change", ["hook", "bias", "float64", "selective", "activation"])
def test_other_layers_run_as_they_are(
    policy: Policy, examples: list[Example], calls: list[bool], change: str
) -> None:
    language = language_model(policy.model)
    layer = language.layers[1]
    if change == "hook":
        layer.mlp.register_forward_hook(lambda *args: None)
    elif change == "bias":
        layer.self_attn.o_proj.bias = nn.Parameter(torch.ones(layer.self_attn.o_proj.out_features))
    elif change == "float64":
        policy.double()
    elif change == "selective":
        checkpoint_layers(policy.model, "selective")
    else:
        layer.mlp.act_fn = nn.GELU()
    policy(*case(policy, examples))
    assert not any(calls)
