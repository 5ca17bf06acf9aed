"""What is subtracted for each token: drift from the old policy, divergence from the reference.

A part takes any of ``log_ratio`` ℓ = log π − log π_old, ``reference_log_ratio`` = log π − log π_ref, both (n,
T), and returns its penalty (n, T), its coefficient included. A part that takes ``reference_log_ratio`` makes
the run hold a reference policy; without one, none is loaded.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

# e^20 ≈ 5e8: a token there is lost anyway, and sums of such values are still finite in float32.
LARGEST_LOG_RATIO = 20.0


def policy_drift(log_ratio: Tensor, *, alpha: PositiveFloat = 0.01, cap: PositiveFloat = 2.0) -> Tensor:
    """α times the drift from the old policy, KL(π_old ‖ π), with CPGD's capped gradient (arXiv 2505.12504).

    The paper optimises stop_gradient(min(r − 1, cap))·log π in place of k3 = r − 1 − ln r. Here k3 goes on as
    a straight line of slope ``cap`` from r = 1 + cap: the same gradient everywhere, and a value that is k3
    wherever nothing is capped.

    Args:
        log_ratio: (n, T).
        alpha: weight; the published runs use 0.001 to 0.01.
        cap: largest r − 1 in the gradient, the paper's c.

    Returns:
        (n, T).
    """
    return alpha * capped_k3(log_ratio, math.log1p(cap))


def kl(
    reference_log_ratio: Tensor,
    *,
    coefficient: PositiveFloat,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    gradient: Literal["paper", "correct"] = "paper",
) -> Tensor:
    """Coefficient times an estimate of KL(π ‖ π_ref) from the sampled token, x = log π − log π_ref.

    k1 = x, k2 = x²/2, k3 = e^−x − 1 + x (Schulman, "Approximating KL divergence", 2020). *paper*
    differentiates the estimator itself, as GRPO does with k3 (arXiv 2402.03300, eq. 4). *correct* keeps the
    value and uses the gradient of the divergence, x·∇log π, which on average over the policy's own samples is
    that of KL(π ‖ π_ref); k2 has it anyway. Left out: the ratio π/π_old that either needs once the policy has
    left the one that sampled.

    Args:
        reference_log_ratio: (n, T).
        coefficient: weight, GRPO's β.
        estimator: which value.
        gradient: which gradient.

    Returns:
        (n, T).
    """
    value = kl_estimate(reference_log_ratio, estimator)
    if gradient == "correct":
        fixed = reference_log_ratio.detach()
        value = value.detach() + fixed * (reference_log_ratio - fixed)
    return coefficient * value


def kl_estimate(reference_log_ratio: Tensor, estimator: str) -> Tensor:
    """k1, k2 or k3 of KL(π ‖ π_ref) for x = log π − log π_ref, (n, T)."""
    if estimator == "k1":
        return reference_log_ratio
    if estimator == "k2":
        return reference_log_ratio.square() / 2
    return capped_k3(-reference_log_ratio, LARGEST_LOG_RATIO)


def capped_k3(log_ratio: Tensor, knee: float = LARGEST_LOG_RATIO) -> Tensor:
    """e^ℓ − 1 − ℓ up to ℓ = knee, its tangent beyond, (n, T): finite, ≥ 0, gradient min(e^ℓ, e^knee) − 1."""
    curved = log_ratio.clamp(max=knee)
    return torch.expm1(curved) - curved + math.expm1(knee) * (log_ratio - knee).clamp(min=0)
