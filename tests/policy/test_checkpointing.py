"""Selective checkpointing: the gradients of no checkpointing, with fewer products than full checkpointing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from tests.fakes.shared_prompts import case

KINDS = (False, "selective", True)


class Count(TorchDispatchMode):
    """Counts the operations that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[str(function).removesuffix(".default")] += 1
        return function(*args, **(kwargs or {}))

    @property
    def products(self) -> int:
        return self.found["aten.mm"] + self.found["aten.addmm"]


def load(folder: Path, checkpointing: bool | str, **options: Any) -> Policy:
    torch.manual_seed(0)
    chosen = {"model": str(folder), "gradient_checkpointing": checkpointing, **options}
    policy = load_policy(PolicyConfig.model_validate(chosen)).train()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return policy


def gradients(policy: Policy, examples: list[Example], count: Count | None = None) -> dict[str, Tensor]:
    """Return all gradients; ``count`` counts what the backward pass does."""
    values, _ = policy(*case(policy, examples))
    loss = (values * torch.linspace(-1, 1, values.numel()).view_as(values)).sum()
    if count is None:
        loss.backward()
    else:
        with count:
            loss.backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures("layers_as_they_are")
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("options", [{}, {"freeze_vision": False}, {"lora": {"rank": 4}}])
def test_selective_checkpointing_gives_the_gradients_of_no_checkpointing(
    tiny_folder: Path, examples: list[Example], options: dict[str, Any], shared: bool
) -> None:
    results = []
    for kind in (False, "selective"):
        policy = load(tiny_folder, kind, **options)
        policy.shared_prefix = shared
        results.append(gradients(policy, examples))
    assert results[0].keys() == results[1].keys() != set()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("layers_as_they_are")
def test_the_backward_pass_recomputes_half_of_the_large_products_and_no_attention(
    tiny_folder: Path, examples: list[Example]
) -> None:
    counts = {kind: Count() for kind in KINDS}
    for kind, count in counts.items():
        gradients(load(tiny_folder, kind), examples, count)
    none, selective, full = (counts[kind] for kind in KINDS)
    layers = 4
    # Of q, k, v, o, gate, up and down the last is not needed; q and gate are kept, k, v, o and up are not.
    assert full.products - none.products == 6 * layers
    assert selective.products - none.products == 4 * layers
    assert none.found["mm_cpgd.packed_attention"] == selective.found["mm_cpgd.packed_attention"] == 0
    assert selective.found["mm_cpgd.packed_attention_backward"] == layers
