"""Compiled layers: values and gradients of the plain ones, and one graph for all layers and lengths."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.shared_prefix import compiled
from mm_cpgd.policy.shared_prefix.choice import forced
from mm_cpgd.rollout import LocalEngine, Sampling
from tests.fakes.shared_prompts import Case, case

# Completion lengths of six micro-batches, for the prompts of the same places.
LENGTHS = ((5, 9), (5, 9, 4, 3), (7, 7), (8, 8, 8, 8, 8), (2,), (50, 4, 30))
OPTIONS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "adapters": {"lora": {"rank": 4}},
    "checkpointing": {"gradient_checkpointing": True, "lora": {"rank": 4}},
    "selective checkpointing": {"gradient_checkpointing": "selective", "freeze_vision": False},
}


@pytest.fixture(autouse=True)
def _uncompiled_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile graphs without generating code: the same graphs and guards, in a tenth of the time."""
    torch._dynamo.reset()
    counters.clear()
    fast = functools.cache(lambda: torch.compile(compiled._layer, fullgraph=True, backend="aot_eager"))
    monkeypatch.setattr(compiled, "_compiled", fast)
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def load(folder: Path, **options: Any) -> Policy:
    torch.manual_seed(0)
    policy = load_policy(PolicyConfig.model_validate({"model": str(folder), **options})).train()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return policy


def rows(policy: Policy, examples: list[Example], lengths: tuple[int, ...]) -> Case:
    prompts = [policy.encoder.encode(examples[index % 2]) for index in range(2)]
    tokens = torch.arange(len(lengths) * max(lengths)).view(len(lengths), -1) % 200 + 20
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return [prompts[index % 2] for index in range(len(lengths))], tokens, mask


def results(policy: Policy, batch: Case) -> tuple[Tensor, dict[str, Tensor]]:
    policy.zero_grad(set_to_none=True)
    values, _ = policy(*batch)
    (values * torch.linspace(-1, 1, values.numel()).view_as(values)).sum().backward()
    return values.detach(), {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures("layers_as_they_are")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_and_gradients_are_those_of_the_plain_layers(
    tiny_folder: Path, examples: list[Example], options: dict[str, Any]
) -> None:
    plain, fast = (load(tiny_folder, compile=wanted, **options) for wanted in (False, True))
    batch = case(plain, examples)
    wanted, found = results(plain, batch), results(fast, batch)
    assert graphs() == 1
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == wanted[1].keys() != set()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_all_layers_and_lengths_share_one_graph(
    tiny_folder: Path, examples: list[Example], options: dict[str, Any]
) -> None:
    policy = load(tiny_folder, compile=True, **options)
    assert len(policy.model.model.language_model.layers) == 4
    with torch.autocast("cpu", torch.bfloat16):
        for lengths in LENGTHS:
            results(policy, rows(policy, examples, lengths))
    assert graphs() == 1


def test_values_without_gradients_are_those_of_the_update_to_the_bit(
    tiny_folder: Path, examples: list[Example]
) -> None:
    policy = load(tiny_folder, compile=True)
    batch = case(policy, examples)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            old, _ = policy(*batch)
        new, _ = policy(*batch)
    assert not old.requires_grad
    assert new.requires_grad
    assert torch.equal(old, new)
    assert graphs() == 1


def test_the_reference_policy_is_compiled_once_more(tiny_folder: Path, examples: list[Example]) -> None:
    plain, fast = (load(tiny_folder, compile=wanted, lora={"rank": 4}) for wanted in (False, True))
    for lengths in LENGTHS[:3]:
        batch = rows(fast, examples, lengths)
        results(fast, batch)
        with torch.no_grad(), fast.as_reference() as reference, plain.as_reference() as wanted:
            torch.testing.assert_close(reference(*batch)[0], wanted(*batch)[0], rtol=1e-5, atol=1e-6)
    assert graphs() == 2


def test_sampling_compiles_nothing(tiny_folder: Path, examples: list[Example]) -> None:
    policy = load(tiny_folder, compile=True).eval()
    LocalEngine(policy).generate([policy.encoder.encode(examples[0])], Sampling(4), [[1, 2]])
    assert graphs() == 0


def test_rows_that_share_nothing_run_plain_layers(tiny_folder: Path, examples: list[Example]) -> None:
    policy = load(tiny_folder, compile=True)
    policy.shared_prefix = False
    results(policy, case(policy, examples))
    assert graphs() == 0


def test_flex_attention_runs_plain_layers(tiny_folder: Path, examples: list[Example]) -> None:
    policy = load(tiny_folder, compile=True)
    with forced("flex_attention"):
        results(policy, case(policy, examples))
    assert graphs() == 0


def test_a_copy_of_the_model_runs_with_its_own_weights(tiny_folder: Path, examples: list[Example]) -> None:
    policy = load(tiny_folder, compile=True)
    batch = case(policy, examples)
    policy.keep_reference()
    before = results(policy, batch)[0]
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
        with policy.as_reference() as reference:
            found, _ = reference(*batch)
    torch.testing.assert_close(found, before, rtol=1e-5, atol=1e-6)
    assert (results(policy, batch)[0] - before).abs().max() > 0.1


class Broken(Exception):
    """Stands for any failure within a compiler's backend."""


def broken(*args: Any) -> Any:
    raise Broken("no such compiler\nmore")


@pytest.mark.usefixtures("layers_as_they_are")
@pytest.mark.parametrize("wanted", ["auto", True])
def test_layers_that_cannot_be_compiled_run_plain_unless_compilation_is_required(
    tiny_folder: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch, wanted: bool | str
) -> None:
    monkeypatch.setattr("mm_cpgd.policy.model.compilation_pays", lambda model: True)
    failing = functools.cache(lambda: torch.compile(compiled._layer, fullgraph=True, backend=broken))
    monkeypatch.setattr(compiled, "_compiled", failing)
    policy, plain = load(tiny_folder, compile=wanted), load(tiny_folder, compile=False)
    batch = case(policy, examples)
    if wanted is True:
        with pytest.raises(UserError, match=r"cannot be compiled: BackendCompilerFailed: .*; set policy"):
            policy(*batch)
        return
    with pytest.warns(UserWarning, match="the layers run uncompiled: BackendCompilerFailed: "):
        found = results(policy, batch)
    wanted_values = results(plain, batch)
    torch.testing.assert_close(found[0], wanted_values[0])
    for name, gradient in wanted_values[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6)


def test_without_a_gpu_nothing_is_compiled_by_default(tiny_folder: Path) -> None:
    said: list[str] = []
    policy = load_policy(PolicyConfig(model=str(tiny_folder)), say=said.append)
    assert not hasattr(policy.model.model.language_model, "compilation")
    assert said == []
