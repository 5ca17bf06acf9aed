"""Parts that compare a token's probability behind the picture and behind a changed one.

``blind_log_ratio`` is x = log π(y | picture) − log π(y | changed picture) of a token; ``algorithm.blind``
says how pictures are changed. The estimate of KL(π(· | picture) ‖ π(· | changed picture)) from the sampled
token is k3 = e^−x − 1 + x, bounded by 10 as in the code of PAPO and VPPO.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import OpenShare, Share, described
from mm_cpgd.algorithms.regularizers import kl_estimate

# Largest estimate of a token, and largest |x| in it: the codes of PAPO and VPPO agree on both.
LARGEST_KL = 10.0
LARGEST_GAP = 20.0


@described(
    "Ω = −{coefficient}·min(k, {cap}), k = e^−x − 1 + x, x = log π − log π_blind",
    gradient="−{coefficient}·(1 − e^−x), or 0 beyond the cap; blind_gradient: that of π_blind besides",
    group="depending on the picture",
    use="where the policy answers without looking; beside an entropy penalty",
    source="PAPO, arXiv 2507.06448; the authors' code",
    differs=(
        "The paper differentiates through both policies. Here, as in the authors' code, π_blind is that of "
        "the policy before the update, without a gradient. For the paper's: blind_gradient true, which needs "
        "twice the tokens in the update.",
        "The authors blacken squares of 14 pixels of the file's image, which is scaled afterwards. Here the "
        "model's own patches are blackened, after scaling. No setting does this.",
    ),
)
def implicit_perception(
    blind_log_ratio: Tensor,
    blind_logprobs: Tensor,
    *,
    coefficient: PositiveFloat = 0.01,
    cap: PositiveFloat = LARGEST_KL,
    blind_gradient: bool = False,
) -> Tensor:
    """Reward tokens for depending on the picture: PAPO's implicit perception loss.

    Unbounded in the paper, where it can grow by making the blind policy worse; the authors add an entropy
    penalty against that (``entropy_penalty``, ``double_entropy``).

    Args:
        blind_log_ratio: (n, T), with the gradient of log π.
        blind_logprobs: (n, T), with a gradient if any part of the objective asks for one.
        coefficient: weight, the paper's γ; the published runs take 0.01, or 0.02 beside a KL penalty.
        cap: largest estimate of a token; beyond it there is no gradient.
        blind_gradient: whether the gradient flows through π_blind too.

    Returns:
        (n, T), ≤ 0.
    """
    gap = blind_log_ratio
    if blind_gradient:
        gap = gap - (blind_logprobs - blind_logprobs.detach())
    return -coefficient * kl_estimate(gap, "k3").clamp(max=cap)


@described(
    "Ω = {coefficient}·H, H the entropy of the token's distribution",
    group="entropy",
    use="beside implicit_perception, which can grow by spreading the distribution",
    source="PAPO, arXiv 2507.06448; VPPO, arXiv 2510.09285",
    differs=(
        "The codes of PAPO and VPPO penalise −log π of sampled tokens, whose gradient averages to 0 on "
        "the policy's own samples. Here it is the entropy itself with its gradient. No setting does theirs.",
    ),
)
def entropy_penalty(entropy: Tensor, *, coefficient: PositiveFloat = 0.03) -> Tensor:
    """Penalise the entropy, so that a perception loss cannot grow by spreading the distribution.

    Args:
        entropy: (n, T), nats, with gradient.
        coefficient: weight per nat; 0.03 to 0.05 in PAPO's runs, 0.06 in VPPO's.

    Returns:
        (n, T), ≥ 0.
    """
    return coefficient * entropy


@described(
    "Ω = {coefficient}·(H + H_blind), H_blind the entropy behind the changed picture",
    group="depending on the picture",
    use="beside implicit_perception with blind_gradient",
    source="double entropy loss of PAPO, arXiv 2507.06448",
    differs=(
        "The authors' code estimates both entropies by −log of the sampled token's probability, and leaves "
        "the second without a gradient by default. Here both are entropies with their gradients. "
        "No setting does theirs.",
    ),
)
def double_entropy(entropy: Tensor, blind_entropy: Tensor, *, coefficient: PositiveFloat = 0.03) -> Tensor:
    """Penalise the entropies behind both pictures; needs the gradient of the blind pass.

    Args:
        entropy: (n, T), nats, with gradient.
        blind_entropy: (n, T), likewise.
        coefficient: weight per nat, the paper's η1 = η2.

    Returns:
        (n, T), ≥ 0.
    """
    return coefficient * (entropy + blind_entropy)


@described(
    "m = 1 for the ⌈{share}·|y|⌉ tokens of each completion with the largest k, else 0",
    group="before the first step",
    use="long answers about pictures, of which few tokens need the picture",
    source="VPPO, arXiv 2510.09285; the authors' code",
)
def vppo_tokens(
    old_logprobs: Tensor, blind_logprobs: Tensor, completion: Tensor, *, share: OpenShare = 0.4
) -> Tensor:
    """Learn only from the tokens of each completion that depend most on the picture.

    Of equal estimates the earlier token is taken. The aggregation's denominator still counts all tokens.

    Args:
        old_logprobs: (K,).
        blind_logprobs: (K,).
        completion: (K,) which completion each token belongs to; tokens of one are in order.
        share: of a completion's tokens; at least one token.

    Returns:
        (K,), 0 or 1.
    """
    dependence = visual_dependence(old_logprobs, blind_logprobs)
    order = dependence.argsort(descending=True, stable=True)
    order = order[completion[order].argsort(stable=True)]
    own, counts = _groups(completion)
    starts = (counts.cumsum(0) - counts)[own[order]]
    rank = torch.arange(len(order), device=order.device) - starts
    # In whole numbers up to rounding: 0.4 · 5 tokens are 2, not 3.
    taken = (share * counts.double() - 1e-9).ceil().clamp(min=1)[own[order]]
    weights = torch.zeros_like(dependence)
    weights[order] = (rank < taken).to(weights)
    return weights


@described(
    "m = {smallest} + (1 − {smallest})·n / mean n, n = (s − min s) / (max s − min s), s the mean of k "
    "over y; the others are over completions",
    group="before the first step",
    use="beside vppo_tokens: completions that look count more",
    source="VPPO, arXiv 2510.09285; the authors' code",
    differs=(
        "The authors' code takes the smallest and the largest s over a process's share of the mini-batch, "
        "and the mean over each micro-batch. Here all three are over the mini-batch of all processes, so "
        "that the result does not depend on how it is split.",
    ),
)
def vppo_completions(
    old_logprobs: Tensor, blind_logprobs: Tensor, completion: Tensor, *, smallest: Share = 0.9
) -> Tensor:
    """Give completions that depend more on the picture a larger advantage; the mean factor is 1.

    Args:
        old_logprobs: (K,).
        blind_logprobs: (K,).
        completion: (K,) which completion each token belongs to.
        smallest: the smallest factor, the paper's β_min.

    Returns:
        (K,), > 0 for ``smallest`` > 0; 1 where all completions depend equally.
    """
    dependence = visual_dependence(old_logprobs, blind_logprobs)
    if not dependence.numel():
        return dependence
    own, means = _means(dependence, completion)
    low, high = means.min(), means.max()
    if high - low <= 1e-6:
        return torch.ones_like(dependence)
    shares = (means - low) / (high - low)
    return (smallest + (1 - smallest) * shares / shares.mean())[own]


@described(
    "m = |y|·w / Σ w over y, w = I / {threshold} below the threshold {threshold}, else "
    "1 + {boost}·(I − {threshold}) / (1 − {threshold}), I = ln(1 + k) scaled to 0 … 1 within y",
    group="before the first step",
    use="as vppo_tokens, but no token is left out",
    source="PGPO, arXiv 2604.01840, equations 6 and 7, as two independent descriptions give them",
    differs=(
        "The paper's text and code could not be read: its code is announced, not published. Here formula and "
        "numbers are those on which two published re-implementations agree; the logarithm and the estimate k "
        "of the sampled token are from one of them.",
        "The paper hides the visual tokens from the attention. Here the recipe's picture is blank, which "
        "keeps all positions. No setting does the paper's.",
    ),
)
def pgpo(
    old_logprobs: Tensor,
    blind_logprobs: Tensor,
    completion: Tensor,
    *,
    threshold: OpenShare = 0.4,
    boost: NonNegativeFloat = 2.0,
) -> Tensor:
    """Move a completion's advantage to the tokens that depend on the picture; the sum stays the same.

    Args:
        old_logprobs: (K,).
        blind_logprobs: (K,).
        completion: (K,) which completion each token belongs to.
        threshold: of the scaled dependence, the paper's τ.
        boost: the weight of the most dependent token is 1 + boost before the sum is restored; the paper's β.

    Returns:
        (K,), ≥ 0, with mean 1 in each completion; 1 where all tokens of a completion depend equally.
    """
    dependence = visual_dependence(old_logprobs, blind_logprobs).log1p()
    if not dependence.numel():
        return dependence
    own = _groups(completion)[0]
    low, high = (_extreme(dependence, own, which)[own] for which in ("amin", "amax"))
    flat = high - low <= 1e-6
    scaled = (dependence - low) / torch.where(flat, torch.ones_like(low), high - low)
    above = 1 + boost * (scaled - threshold) / (1 - threshold)
    weights = torch.where(scaled < threshold, scaled / threshold, above)
    weights = torch.where(flat, torch.ones_like(weights), weights)
    return weights / _means(weights, completion)[1][own]


def visual_dependence(logprobs: Tensor, blind_logprobs: Tensor) -> Tensor:
    """Return the k3 estimate of KL(π(· | picture) ‖ π(· | changed picture)), in [0, 10] nats, by token."""
    gap = (logprobs - blind_logprobs).clamp(-LARGEST_GAP, LARGEST_GAP)
    return kl_estimate(gap, "k3").clamp(max=LARGEST_KL)


def _groups(completion: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's completion (K,) as an index from 0, and the completions' numbers of tokens (N,)."""
    found: tuple[Tensor, Tensor, Tensor] = torch.unique(completion, return_inverse=True, return_counts=True)
    return found[1], found[2]


def _means(values: Tensor, completion: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's completion (K,) as an index, and the completions' means (N,)."""
    own, counts = _groups(completion)
    return own, values.new_zeros(len(counts)).index_add(0, own, values) / counts


def _extreme(values: Tensor, own: Tensor, which: str) -> Tensor:
    """Return the smallest or largest value of each completion (N,)."""
    return values.new_zeros(int(own.max()) + 1).scatter_reduce(0, own, values, which, include_self=False)
