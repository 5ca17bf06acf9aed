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
            the one before left (min-p relative to the most probable token).

    Returns:
        (N,) token ids.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = _cut((logits / sampling.temperature).softmax(-1), sampling)
    cumulative = probabilities.cumsum(-1)
    # Scaling by the last entry keeps rounding from ever pointing behind the last token.
    wanted = uniforms.unsqueeze(-1).to(cumulative) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, wanted, right=True).squeeze(-1)
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(-1)
    return torch.minimum(tokens, last)


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
