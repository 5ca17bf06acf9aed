"""The last layer is computed for the tokens that are read: same results, fewer tokens; others run whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from data import Example
from mm_cpgd.policy import Policy
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix import last_layer
from mm_cpgd.policy.shared_prefix.attention import SharedPrefixAttention
from mm_cpgd.policy.shared_prefix.last_layer import can_be_split, run_last_layer
from mm_cpgd.policy.shared_prefix.packing import packed_layout
from tests.fakes.shared_prompts import case

ROWS = torch.tensor([6, 7, 8, 9, 10])


@pytest.fixture
def layer(tiny_policy: Policy) -> Any:
    return copy.deepcopy(language_model(tiny_policy.model).layers[-1]).eval()


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(1, 11, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def options() -> dict[str, Any]:
    """Options of a sequence with a prompt of seven tokens and two completions of two."""
    angles = torch.randn(1, 11, 32, generator=torch.Generator().manual_seed(2))
    layout = packed_layout(torch.tensor([7]), torch.tensor([4]), torch.tensor([2, 2]))
    return {
        "position_embeddings": (angles.cos(), angles.sin()),
        "attention_mask": None,
        "attention_backend": SharedPrefixAttention(layout),
    }


def gradients(layer: Any, hidden: Tensor, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return what ``run`` makes of hidden states, and the gradients of these and of the weights."""
    leaf = hidden.clone().requires_grad_()
    out = run(leaf)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [leaf, *layer.parameters()])]


def test_values_and_gradients_are_those_of_the_whole_layer(
    layer: Any, hidden: Tensor, options: dict[str, Any]
) -> None:
    assert can_be_split(layer, hidden)
    found = gradients(layer, hidden, lambda states: run_last_layer(layer, states, options, ROWS))
    wanted = gradients(layer, hidden, lambda states: layer(states, **options)[:, ROWS])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_prompts_pass_the_last_mlp_with_their_last_token_alone(
    tiny_policy: Policy, examples: list[Example]
) -> None:
    counts: list[int] = []
    prompts, tokens, mask = case(tiny_policy, examples)
    with torch.no_grad():
        tiny_policy(prompts, tokens, mask)  # the comparison before the first use
    mlps = [layer.mlp for layer in language_model(tiny_policy.model).layers[-2:]]
    handles = [
        mlp.register_forward_pre_hook(lambda module, inputs: counts.append(inputs[0].shape[1]))
        for mlp in mlps
    ]
    with torch.no_grad():
        tiny_policy(prompts, tokens, mask)
    for handle in handles:
        handle.remove()
    different = {id(prompt): len(prompt) for prompt in prompts}
    packed = int((mask.sum(1) - 1).clamp(min=0).sum())
    started = {id(prompt) for prompt, own in zip(prompts, mask, strict=True) if own.any()}
    assert counts == [sum(different.values()) + packed, len(started) + packed]


@pytest.mark.parametrize("change", ["hook", "forward", "part"])
def test_a_layer_with_more_in_it_runs_whole(
    layer: Any, hidden: Tensor, options: dict[str, Any], change: str
) -> None:
    calls: list[str] = []
    if change == "hook":
        layer.register_forward_hook(lambda *args: calls.append("hook"))
    elif change == "forward":
        whole = layer.forward
        layer.forward = lambda *args, **given: calls.append("forward") or whole(*args, **given)
    else:
        layer.extra = torch.nn.Identity()
    assert not can_be_split(layer, hidden)
    expected = layer(hidden, **options)[:, ROWS]
    assert torch.equal(run_last_layer(layer, hidden, options, ROWS), expected)
    assert calls == {"hook": ["hook"] * 2, "forward": ["forward"] * 2, "part": []}[change]


def test_a_layer_that_computes_something_else_runs_whole(
    layer: Any, hidden: Tensor, options: dict[str, Any]
) -> None:
    class Scaled(type(layer)):  # type: ignore[misc]
        """A layer that weighs what it adds, as those of other families."""

        def forward(self, hidden_states: Tensor, **given: Any) -> Tensor:
            return hidden_states + 0.9 * (super().forward(hidden_states, **given) - hidden_states)

    layer.__class__ = Scaled
    assert not can_be_split(layer, hidden)
    assert torch.equal(run_last_layer(layer, hidden, options, ROWS), layer(hidden, **options)[:, ROWS])


def test_a_layer_keeps_its_mode_and_is_compared_once(
    layer: Any, hidden: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer.train()
    layer.mlp.eval()
    assert can_be_split(layer, hidden)
    assert layer.training
    assert not layer.mlp.training
    monkeypatch.setattr(last_layer, "_agrees", lambda *args: pytest.fail("compared twice"))
    assert can_be_split(layer, hidden)


def test_activations_are_recomputed_where_the_layer_would(
    layer: Any, hidden: Tensor, options: dict[str, Any]
) -> None:
    calls: list[int] = []

    def checkpoint(run: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        calls.append(states.shape[1])
        return run(states)

    layer._gradient_checkpointing_func, layer.gradient_checkpointing = checkpoint, True
    run_last_layer(layer, hidden, options, ROWS)
    assert not calls
    run_last_layer(layer.train(), hidden, options, ROWS)
    assert calls == [11]
