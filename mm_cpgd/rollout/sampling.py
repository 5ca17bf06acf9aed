"""Drawing one token a row from logits, with exact semantics."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_cpgd.rollout.engine import Sampling


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Draw by inverting the cumulative distribution, so that a row's uniform number fixes its token.

    Args:
        logits: (N, V) float32; forbidden tokens already at -inf.
        uniforms: (N,) in [0, 1).
        sampling: temperature divides first; then top-k, top-p and min-p cut, each on the probabilities that
            the one before left. Top-k keeps all tokens that tie with the k-th; top-p keeps the token that
            crosses the threshold; min-p is relative to the most probable token.

    Returns:
        (N,) token ids.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = _cut((logits / sampling.temperature).softmax(-1), sampling)
    # In float64: over 150,000 tokens a float32 sum would drift, and u times the total could round up to it.
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    wanted = uniforms.unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, wanted, right=True).squeeze(-1)
    # Only logits that are not finite lead past the end; the caller sees them in the log-probabilities.
    return tokens.clamp(max=logits.shape[-1] - 1)


def _cut(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """Set to zero what top-k, top-p and min-p exclude; the result is not normalised."""
    if sampling.top_k:
        kth = probabilities.topk(min(sampling.top_k, probabilities.shape[-1])).values[:, -1:]
        probabilities = probabilities.where(probabilities >= kth, 0.0)
    if sampling.top_p < 1:
        ordered, index = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        outside = before >= sampling.top_p * ordered.sum(-1, keepdim=True)
        probabilities = probabilities.masked_fill(torch.zeros_like(outside).scatter(-1, index, outside), 0.0)
    if sampling.min_p:
        floor = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.where(probabilities >= floor, 0.0)
    return probabilities
