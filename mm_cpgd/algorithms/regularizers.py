"""Regularizers: terms subtracted for each token (policy drift, divergence from the reference, entropy).

A part takes any of ``log_ratio`` ℓ = log π − log π_old, ``reference_log_ratio`` = log π − log π_ref,
``entropy``, all (n, T), and returns its penalty (n, T), its coefficient included. Only if a part takes
``reference_log_ratio`` does the run hold a reference policy; only if one takes ``entropy`` does the entropy
carry a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import OpenShare, described
from mm_cpgd.algorithms.token_weights import largest_covariances


class State(Protocol):
    """State of a part, as the objective uses it."""

    @property
    def value(self) -> Any:
        """The part's input ``state``."""

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Update the state with the metrics of an optimizer step, named as in ``Objective.loss``."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for ``load_state_dict``, as plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state."""


class EntropyController:
    """Controller of a coefficient that grows while the entropy is below its target and shrinks while above.

    Args:
        target: entropy in nats per token.
        step: change of the coefficient at each optimizer step.
        largest: upper bound of the coefficient; the lower one is 0.
    """

    def __init__(self, target: float, step: float, largest: float) -> None:
        self.target = target
        self.step = step
        self.largest = largest
        self.coefficient = 0.0
        self.below = False

    @property
    def value(self) -> float:
        """The coefficient in use: 0 while the entropy is above its target."""
        return self.coefficient if self.below else 0.0

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Change the coefficient by one step; a metrics row whose entropy is NaN or missing is ignored."""
        entropy = metrics.get("entropy", float("nan"))
        if entropy != entropy:
            return
        self.below = entropy <= self.target
        moved = self.coefficient + (self.step if self.below else -self.step)
        self.coefficient = min(max(moved, 0.0), self.largest)

    def state_dict(self) -> dict[str, Any]:
        """Return the coefficient and the side of the target."""
        return {"coefficient": self.coefficient, "below": self.below}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state."""
        self.coefficient, self.below = float(state["coefficient"]), bool(state["below"])


# e^20 ≈ 5e8: a token beyond it has diverged anyway, and sums of such values are still finite in float32.
LARGEST_LOG_RATIO = 20.0


@described(
    "Ω = {alpha}·(r − 1 − ln r), continued by its tangent beyond r = 1 + {cap}",
    gradient="{alpha}·min(r − 1, {cap})",
    source="CPGD, arXiv 2505.12504",
    group="distance from the old policy",
    use="with the surrogate cpgd; against drift over many steps",
)
def policy_drift(log_ratio: Tensor, *, alpha: PositiveFloat = 0.01, cap: PositiveFloat = 2.0) -> Tensor:
    """Drift from the old policy, KL(π_old ‖ π), with CPGD's capped gradient.

    The paper optimises stop_gradient(min(r − 1, cap))·log π in place of k3 = r − 1 − ln r. Here k3 is
    continued by its tangent of slope ``cap`` from r = 1 + cap: the same gradient everywhere, and the value of
    k3 wherever the cap does not act.

    Args:
        log_ratio: (n, T).
        alpha: weight; the published runs use 0.001 to 0.01.
        cap: largest r − 1 in the gradient, the paper's c.

    Returns:
        (n, T).
    """
    return alpha * capped_k3(log_ratio, math.log1p(cap))


@described(
    "Ω = (r·ln r − r + 1) / {step}, continued by its tangent beyond ℓ = {cap}",
    gradient="r·ℓ / {step}, at most that of ℓ = {cap}",
    source="MDPO, arXiv 2005.09814, and the authors' code; estimated from sampled tokens",
    differs=(
        "The authors' code takes the divergence in closed form, over all actions. Here it is estimated from "
        "the sampled token by r·ln r − r + 1, which is unbiased and not negative; no setting does the other.",
        "The authors' step falls linearly over the run, to 0. Here it is a number, or a schedule that ends "
        "above 0 in its place.",
    ),
    group="distance from the old policy",
    use="in place of a clip, with importance and several inner epochs",
)
def mirror(log_ratio: Tensor, *, step: PositiveFloat = 0.2, cap: PositiveFloat = 2.0) -> Tensor:
    """Divergence of mirror descent, KL(π ‖ π_old): the policy's step away from the old one has a cost.

    With the surrogate ``importance`` a token's gradient is r·(A − ℓ/t), t the step, which is 0 at ℓ = t·A for
    either sign of A: the closed-form solution π_old·e^(tA). No clip is needed. ``policy_drift`` is the
    opposite divergence, KL(π_old ‖ π), which stops nothing where A is larger than its α. At the first step of
    a rollout batch ℓ = 0 and the term has no gradient: take several inner epochs or mini-batches.

    Args:
        log_ratio: (n, T).
        step: t, in units of ℓ per unit of advantage; with std-normalised advantages 0.05 to 0.5.
        cap: ℓ beyond which the term is linear, so that r·ℓ cannot overflow.

    Returns:
        (n, T), ≥ 0; 0 at ℓ = 0 alone.
    """
    curved = log_ratio.clamp(max=cap)
    ratio = curved.exp()
    beyond = cap * math.exp(cap) * (log_ratio - cap).clamp(min=0)
    return (ratio * curved - torch.expm1(curved) + beyond) / step


@described(
    "Ω = {coefficient}·k, x = log π − log π_ref",
    gradient="{coefficient}·dk/dx (gradient: paper), {coefficient}·x (correct), {coefficient}·r·x (unbiased)",
    source="Schulman 2020; GRPO, arXiv 2402.03300, eq. 4; unbiased: DeepSeek-V3.2, arXiv 2512.02556",
    choice="estimator",
    variants={"k1": "k = x", "k2": "k = x²/2", "k3": "k = e^−x − 1 + x"},
    group="distance from the reference",
    use="to keep what the first policy could do; unbiased for several steps on a batch",
)
def kl(
    reference_log_ratio: Tensor,
    log_ratio: Tensor,
    *,
    coefficient: PositiveFloat,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    gradient: Literal["paper", "correct", "unbiased"] = "paper",
) -> Tensor:
    """Estimate of KL(π ‖ π_ref) from the sampled token.

    Estimators as in Schulman, "Approximating KL divergence", 2020. *paper* differentiates the estimator
    itself, as GRPO does with k3 (arXiv 2402.03300, eq. 4). *correct* keeps the value and uses the gradient
    x·∇log π, whose mean over the policy's own samples is that of KL(π ‖ π_ref); for k2 the two agree. Once π
    differs from the old policy, which has sampled, both are biased. *unbiased* multiplies the value and this
    gradient by the ratio r = π/π_old; with k3 it is the gradient of DeepSeek-V3.2's r·k3.

    Args:
        reference_log_ratio: (n, T).
        log_ratio: (n, T); *unbiased* alone uses it.
        coefficient: weight, GRPO's β.
        estimator: estimator of the value.
        gradient: *paper*, *correct* or *unbiased*.

    Returns:
        (n, T).
    """
    value = kl_estimate(reference_log_ratio, estimator)
    if gradient != "paper":
        fixed = reference_log_ratio.detach()
        value = value.detach() + fixed * (reference_log_ratio - fixed)
    if gradient == "unbiased":
        value = log_ratio.detach().clamp(max=LARGEST_LOG_RATIO).exp() * value
    return coefficient * value


@described(
    "Ω = −{coefficient}·H, H the entropy of the token's distribution",
    source="Williams & Peng 1991; arXiv 1602.01783",
    group="entropy",
    use="where the entropy falls too fast; one number to tune",
)
def entropy_bonus(entropy: Tensor, *, coefficient: PositiveFloat) -> Tensor:
    """Entropy bonus, aggregated like the other terms.

    TRL always takes the token mean, whatever its loss_type; here the objective's aggregation applies.

    Args:
        entropy: (n, T), nats, with gradient.
        coefficient: weight per nat; 0.001 to 0.01 is usual.

    Returns:
        (n, T), ≤ 0.
    """
    return -coefficient * entropy


@described(
    "Ω = −c·H while H of the last step ≤ {target}, else 0; after each step c grows by {step} if H ≤ "
    "{target}, shrinks by it if not, within 0 to {largest}",
    source="adaptive entropy control, Skywork-OR1, arXiv 2505.22312",
    state=EntropyController,
    group="entropy",
    use="to hold the entropy above a value, whatever the stage of the run",
)
def entropy_control(
    entropy: Tensor,
    state: float,
    *,
    target: PositiveFloat = 0.2,
    step: PositiveFloat = 0.005,
    largest: PositiveFloat = 1.0,
) -> Tensor:
    """Entropy bonus whose coefficient is adapted so that the entropy does not fall below a target.

    Args:
        entropy: (n, T), nats, with gradient.
        state: the current coefficient, see ``EntropyController``.
        target: entropy in nats per token.
        step: change of the coefficient at each optimizer step.
        largest: upper bound of the coefficient.

    Returns:
        (n, T), ≤ 0.
    """
    return -state * entropy


@described(
    "Ω = {coefficient}·|ℓ| for the {share} of the mini-batch's tokens with the largest c, else 0; "
    "c = (log π − mean log π)·(A − mean A) over the mini-batch",
    gradient="{coefficient}·sign ℓ, or 0",
    source="KL-Cov, arXiv 2505.22617",
    prepare=largest_covariances,
    differs=(
        "The authors take a share of 0.002 for 7B and 0.0002 for 32B, of each micro-batch and by the current "
        "policy. Here the default is that of 7B, of the whole mini-batch and by the old policy. For that of "
        "32B set share to 0.0002.",
    ),
    group="distance from the old policy",
    use="against the collapse of entropy, at the few tokens that cause it",
)
def kl_cov(
    log_ratio: Tensor, prepared: Tensor, *, coefficient: PositiveFloat = 1.0, share: OpenShare = 2e-3
) -> Tensor:
    """Penalise divergence from the old policy only at the tokens that reduce the entropy most.

    The divergence is estimated by |ℓ|, as in the authors' code; the paper writes KL(π_old ‖ π).

    Args:
        log_ratio: (n, T).
        prepared: (n, T), 1 at the tokens of largest covariance; see ``token_weights.largest_covariances``.
        coefficient: weight, the paper's β = 1.
        share: share of the mini-batch's tokens; the paper's k is 2e-4 to 2e-3.

    Returns:
        (n, T).
    """
    return coefficient * prepared * log_ratio.abs()


def kl_estimate(reference_log_ratio: Tensor, estimator: str) -> Tensor:
    """Return the k1, k2 or k3 estimate of KL(π ‖ π_ref) for x = log π − log π_ref, (n, T)."""
    if estimator == "k1":
        return reference_log_ratio
    if estimator == "k2":
        return reference_log_ratio.square() / 2
    return capped_k3(-reference_log_ratio, LARGEST_LOG_RATIO)


def capped_k3(log_ratio: Tensor, knee: float = LARGEST_LOG_RATIO) -> Tensor:
    """Return e^ℓ − 1 − ℓ up to ℓ = knee, its tangent beyond, (n, T); ≥ 0, gradient min(e^ℓ, e^knee) − 1."""
    curved = log_ratio.clamp(max=knee)
    return torch.expm1(curved) - curved + math.expm1(knee) * (log_ratio - knee).clamp(min=0)
