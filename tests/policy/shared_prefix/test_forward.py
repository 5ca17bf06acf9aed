"""Completions that share their prompt's forward pass: values and gradients equal those of separate rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from tests.fakes.shared_prompts import LENGTHS, Case, case

# bfloat16 holds 8 bits: each layer rounds at 2^-8, and the two orders of summation round differently.
BFLOAT16 = 0.05


def results(policy: Policy, rows: Case, *, shared: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return values, entropies, and gradients of a sum in which every token has a different weight."""
    policy.shared_prefix = shared
    policy.zero_grad(set_to_none=True)
    values, entropies = policy(*rows, True)
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    (weights * values + weights.flip(0) * entropies).sum().backward()
    gradients = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad(set_to_none=True)
    policy.shared_prefix = True
    return values.detach(), entropies.detach(), gradients


def assert_shared_equals_unshared(policy: Policy, rows: Case, tolerance: float = 1e-5) -> None:
    wanted = results(policy, rows, shared=False)
    found = results(policy, rows, shared=True)
    for one, other in zip(found[:2], wanted[:2], strict=True):
        assert (one - other).norm() <= tolerance * other.norm()
    assert found[2].keys() == wanted[2].keys() != set()
    for name, gradient in wanted[2].items():
        # A bias of the keys shifts all scores of a query equally: its gradient is 0 up to rounding.
        floor = 1e-3 if name.endswith("k_proj.bias") else 0.0
        assert (found[2][name] - gradient).norm() <= tolerance * (gradient.norm() + floor), name


OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "with gradient checkpointing": {"gradient_checkpointing": True},
    "with adapters": {"lora": {"rank": 4}},
    "with a trained vision tower": {"freeze_vision": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_entropies_and_gradients_are_those_of_rows_that_share_nothing(
    tiny_folder: Path, examples: list[Example], options: dict[str, Any]
) -> None:
    policy = load_policy(PolicyConfig.model_validate({"model": str(tiny_folder), **options})).train()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert_shared_equals_unshared(policy, case(policy, examples))


def test_in_bfloat16_both_agree_within_its_precision(tiny_folder: Path, examples: list[Example]) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder))).train()
    rows = case(policy, examples)
    exact = results(policy, rows, shared=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(policy, rows, shared=True)
        alone = results(policy, rows, shared=False)
    for name, gradient in exact[2].items():
        if not name.endswith("k_proj.bias"):
            error, usual = (found[2][name] - gradient).norm(), (alone[2][name] - gradient).norm()
            assert error <= max(BFLOAT16 * gradient.norm(), 1.5 * usual), name
    assert (found[0] - exact[0]).norm() <= BFLOAT16 * exact[0].norm()


def test_a_completion_does_not_depend_on_its_group(tiny_policy: Policy, examples: list[Example]) -> None:
    prompts, tokens, mask = case(tiny_policy, examples)
    with torch.no_grad():
        values, _ = tiny_policy(prompts, tokens, mask)
        other, _ = tiny_policy(prompts, tokens.index_fill(0, torch.tensor([0]), 7), mask)
    torch.testing.assert_close(other[1:], values[1:], rtol=0, atol=1e-6)
    assert (other[0] - values[0]).abs().max() > 1e-2


def test_the_packed_sequence_holds_each_prompt_once_and_no_padding(
    tiny_policy: Policy, examples: list[Example]
) -> None:
    rows = case(tiny_policy, examples)
    counts: list[int] = []
    layer = tiny_policy.model.model.language_model.layers[0]
    handle = layer.register_forward_pre_hook(
        lambda module, inputs: counts.append(inputs[0].shape[:2].numel())
    )
    with torch.no_grad():
        tiny_policy(*rows)
    handle.remove()
    distinct = {id(prompt): len(prompt) for prompt in rows[0]}
    # No token is predicted after a completion's last token, so it is left out.
    assert counts == [sum(distinct.values()) + sum(max(length - 1, 0) for length in LENGTHS)]
