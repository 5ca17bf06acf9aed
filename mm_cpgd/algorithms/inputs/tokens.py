"""Inputs of parts by token, and the metrics that are means over tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.algorithms.methods.perception import LARGEST_KL
from mm_cpgd.algorithms.regularizers import LARGEST_LOG_RATIO, capped_k3, kl_estimate


def part_inputs(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    lengths: Tensor,
    reference_logprobs: Tensor | None,
    entropy: Tensor | None,
) -> dict[str, Any]:
    """Return the inputs of parts by name: at least float32, with 0 at masked positions."""
    dtype = torch.promote_types(logprobs.dtype, torch.float32)
    zero = torch.zeros((), dtype=dtype, device=logprobs.device)

    def clean(values: Tensor) -> Tensor:
        return torch.where(mask, values.to(dtype), zero)

    available: dict[str, Any] = {
        "log_ratio": clean(logprobs.to(dtype) - old_logprobs),
        "old_logprobs": clean(old_logprobs),
        "advantages": (advantages[:, None] if advantages.dim() == 1 else clean(advantages)).to(dtype),
        "mask": mask,
        "lengths": lengths.to(device=logprobs.device, dtype=dtype),
    }
    if reference_logprobs is not None:
        available["reference_log_ratio"] = clean(logprobs.to(dtype) - reference_logprobs)
    if entropy is not None:
        available["entropy"] = clean(entropy)
    return available


@torch.no_grad()
def token_metrics(available: Mapping[str, Any], clipped: Tensor) -> dict[str, Tensor]:
    """Return these rows' share of the token means over the mini-batch, and the extremes of the ratio."""
    mask, log_ratio = available["mask"], available["log_ratio"]
    tokens = available["lengths"].sum().clamp(min=1)
    ratio = log_ratio.clamp(max=LARGEST_LOG_RATIO).exp()
    by_token = {"policy_drift": capped_k3(log_ratio), "clip_fraction": clipped, "ratio": ratio}
    if "reference_log_ratio" in available:
        by_token["kl"] = kl_estimate(available["reference_log_ratio"], "k3")
    if "entropy" in available:
        by_token["entropy"] = available["entropy"]
    if "blind_log_ratio" in available:
        by_token["visual_kl"] = kl_estimate(available["blind_log_ratio"], "k3").clamp(max=LARGEST_KL)
    if "token_weight" in available:
        by_token["token_weight"] = available["token_weight"]
    if "drawn_own" in available:
        by_token["drawn_own"] = available["drawn_own"].to(ratio).mean(2)
    metrics = {name: (values * mask).sum() / tokens for name, values in by_token.items()}
    # An infinite fill is the neutral element of the reduction, for rows without any token.
    metrics["max/ratio"] = ratio.masked_fill(~mask, float("-inf")).amax()
    metrics["min/ratio"] = ratio.masked_fill(~mask, float("inf")).amin()
    return metrics
