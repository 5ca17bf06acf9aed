"""The matrix's checks of adapters: placed, trained, merged, saved apart, and started from."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.families.checks import TOLERANCE, backward_of, close
from benchmarks.families.subject import Subject, expect
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.families import vision_parameters
from mm_cpgd.policy.policy import ADAPTER_FOLDER


def language(subject: Subject) -> None:
    """Adapters are on the language model alone; merged and apart they give the same values."""
    policy = _round_trip(subject, {"rank": 2})
    inside = {id(parameter) for parameter in vision_parameters(policy.model)}
    trained = [p for p in policy.parameters() if p.requires_grad]
    expect(not inside & {id(p) for p in trained}, "the vision tower has adapters")


def vision(subject: Subject) -> None:
    """With ``policy.lora.vision`` the vision tower and its projector have adapters too, which are trained."""
    policy = _round_trip(subject, {"rank": 2, "vision": True})
    backward_of(subject, policy)
    adapters = [p for p in vision_parameters(policy.model) if p.requires_grad]
    moved = [p.grad is not None and bool(p.grad.any()) for p in adapters]
    # A head or a last layer of the tower that the family does not use gets no gradient.
    expect(sum(moved) > 0.6 * len(moved), f"{sum(moved)} of {len(moved)} vision adapters have a gradient")


def dora(subject: Subject) -> None:
    """DoRA starts as the model, and is merged with its norms."""
    policy = load_policy(_config(subject, {"rank": 2, "dora": True}))
    close(subject.logprobs_of(policy), subject.logprobs)
    _round_trip(subject, {"rank": 2, "dora": True})


def quantized(subject: Subject) -> None:
    """Adapters on weights of 4 bits are trained; merged with unpacked weights they give the same values."""
    policy = _round_trip(subject, {"rank": 2, "quantize": "nf4"}, tolerance=1e-3)
    kinds = {type(module).__name__ for module in policy.model.modules()}
    expect("Linear4bit" in kinds, "no weight is quantized")


def _round_trip(subject: Subject, lora: dict[str, Any], tolerance: float = 10 * TOLERANCE) -> Policy:
    """Train and save adapters, and compare with the merged model and with adapters that start from them."""
    policy = subject.load(lora=lora)
    for name, parameter in policy.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1 + 0.2 * torch.rand_like(parameter)
    backward_of(subject, policy)
    expect(
        all(p.requires_grad == (".lora_" in name) for name, p in policy.named_parameters()), "others train"
    )
    values = subject.logprobs_of(policy)
    expect((values - subject.logprobs).abs().max() > 0.01, "the adapters change nothing")
    folder = subject.new_folder()
    policy.save(folder)
    merged = load_policy(PolicyConfig(model=str(folder)))
    torch.testing.assert_close(subject.logprobs_of(merged), values, rtol=0, atol=tolerance)
    again = load_policy(_config(subject, {**lora, "adapter": str(folder / ADAPTER_FOLDER)}))
    torch.testing.assert_close(subject.logprobs_of(again), values, rtol=0, atol=tolerance)
    return policy


def _config(subject: Subject, lora: dict[str, Any]) -> PolicyConfig:
    return PolicyConfig.model_validate({"model": str(subject.folder), "lora": lora})
