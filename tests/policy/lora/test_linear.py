"""Adapted linear layers: the values and gradients of peft's own, and what is left to peft."""

from __future__ import annotations

import contextlib

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from mm_cpgd.policy.lora.linear import AccumulatingLinear, accumulate


def adapted(*, bias: bool = True, dtype: torch.dtype = torch.float32, **options: object) -> nn.Module:
    """Return a model of two linear layers with adapters that are not zero, by peft."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20, bias=bias), nn.GELU(), nn.Linear(20, 7, bias=bias)).to(dtype)
    peft_model: nn.Module = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"], **options)
    )
    for name, parameter in peft_model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.3)
    return peft_model


def results(model: nn.Module, inputs: Tensor, *, autocast: bool = False) -> list[Tensor]:
    """Return output and all gradients."""
    model.zero_grad()
    inputs = inputs.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
        output = model(inputs)
    output.float().square().sum().backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [output, inputs.grad, *grads]  # type: ignore[list-item]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
def test_values_and_gradients_are_those_of_peft(bias: bool, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    model = adapted(bias=bias)
    expected = results(model, inputs)
    accumulate(model)
    assert sum(isinstance(module, AccumulatingLinear) for module in model.modules()) == 2
    for one, other in zip(results(model, inputs), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert len(expected) == 2 + 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_they_are_no_further_from_float32_than_those_of_peft(dtype: torch.dtype) -> None:
    inputs = torch.randn(2048, 12, generator=torch.Generator().manual_seed(1))
    model = adapted(dtype=dtype)
    exact = results(adapted(dtype=dtype).float(), inputs)
    by_peft = results(model, inputs.to(dtype), autocast=True)
    accumulate(model)
    own = results(model, inputs.to(dtype), autocast=True)
    assert [value.dtype for value in own] == [value.dtype for value in by_peft]
    errors = torch.tensor(
        [
            [(one.float() - wanted).norm() / wanted.norm() for one in (value, peft)]
            for value, peft, wanted in zip(own, by_peft, exact, strict=True)
        ]
    )
    assert errors[0, 0] < errors[0, 1]  # of the output
    assert errors[:, 0].mean() <= errors[:, 1].mean()


def test_without_gradients_the_output_of_the_layer_is_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    accumulate(model)
    layer = model.base_model.model[0]  # type: ignore[index, union-attr, operator]
    written: list[int] = []
    product = layer.base_layer.forward

    def recorded(inputs: Tensor) -> Tensor:
        output: Tensor = product(inputs)
        written.append(output.data_ptr())
        return output

    monkeypatch.setattr(layer.base_layer, "forward", recorded)
    with torch.no_grad():
        assert layer(torch.randn(4, 12)).data_ptr() == written[0]
    assert layer(torch.randn(4, 12)).data_ptr() != written[1]


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}])
def test_other_kinds_of_adapters_are_left_to_peft(options: dict[str, object]) -> None:
    inputs = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    model = adapted(**options)
    torch.manual_seed(2)
    expected = results(model, inputs)
    accumulate(model)
    torch.manual_seed(2)
    assert all(torch.equal(*both) for both in zip(results(model, inputs), expected, strict=True))


def test_switched_off_and_merged_adapters_are_left_to_peft() -> None:
    inputs = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    model = adapted()
    expected = model(inputs)
    with model.disable_adapter():  # type: ignore[operator]
        without = model(inputs)
    accumulate(model)
    with model.disable_adapter():  # type: ignore[operator]
        assert torch.equal(model(inputs), without)
    for module in model.modules():
        if isinstance(module, Linear):
            module.merge()
    torch.testing.assert_close(model(inputs), expected)


def test_float32_adapters_of_a_bfloat16_model_work_without_autocast() -> None:
    inputs = torch.randn(6, 12, generator=torch.Generator().manual_seed(1)).bfloat16()
    model = adapted(dtype=torch.bfloat16)
    expected = results(model, inputs)
    accumulate(model)
    assert all(torch.equal(*both) for both in zip(results(model, inputs), expected, strict=True))
