"""Drawing of tokens by inverting the cumulative distribution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

# Tokens whose probabilities are summed first. A running sum over a whole vocabulary is slow on a GPU: one
# block of threads goes through a row.
BLOCK = 512


def draw(logits: Tensor, uniforms: Tensor, *, greedy: bool = False) -> Tensor:
    """Sample by inverting the cumulative distribution, so that a row's uniform number determines its token.

    No shape depends on the values, and nothing is read by the host.

    Args:
        logits: (N, V) float32, as returned by ``sampling_logits``.
        uniforms: (N,) in [0, 1).
        greedy: take the most probable token instead.

    Returns:
        (N,) token ids.
    """
    if greedy:
        return logits.argmax(-1)
    size = logits.shape[-1]
    # In float64: over 150,000 tokens a float32 sum is inaccurate, and u · total could round up to total.
    weights = pad(logits.softmax(-1), (0, -size % BLOCK)).unflatten(-1, (-1, BLOCK))  # (N, V / B, B)
    before = weights.sum(-1, dtype=torch.float64).cumsum(-1)
    targets = uniforms.unsqueeze(-1) * before[:, -1:]
    block = _invert(before, targets)
    before = pad(before, (1, 0)).gather(-1, block)
    chosen = weights.gather(1, block.unsqueeze(-1).expand(-1, -1, BLOCK)).squeeze(1)
    tokens = block * BLOCK + _invert(chosen.cumsum(-1, dtype=torch.float64), targets - before)
    # Only non-finite logits lead past the end; the caller finds them in the log-probabilities.
    return tokens.squeeze(-1).clamp(max=size - 1)


def _invert(cumulative: Tensor, targets: Tensor) -> Tensor:
    """Return the first column (N, 1) of (N, M) above the targets (N, 1), at most the last that increases."""
    # The difference of two sums, each rounded, may reach the end of a block; a weight of 0 must not be drawn.
    last = (cumulative < cumulative[:, -1:]).sum(-1, keepdim=True)
    return torch.searchsorted(cumulative, targets, right=True).minimum(last)
