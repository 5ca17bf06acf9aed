"""Drawing of tokens by inverting the cumulative distribution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

# A running sum over a large vocabulary is slow on a GPU, where one block of threads goes through a row.
# Beyond this many tokens, those of blocks are summed first.
FEW = 16_384
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
    probabilities = logits.softmax(-1)
    # In float64: over 150,000 tokens a float32 sum is inaccurate, and u · total could round up to total.
    if size <= FEW:
        cumulative = probabilities.cumsum(-1, dtype=torch.float64)
        tokens = _invert(cumulative, uniforms.unsqueeze(-1) * cumulative[:, -1:])
    else:
        tokens = _by_blocks(probabilities, uniforms.unsqueeze(-1))
    # Only non-finite logits lead past the end; the caller finds them in the log-probabilities.
    return tokens.squeeze(-1).clamp(max=size - 1)


def _by_blocks(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return the tokens (N, 1) of uniforms (N, 1): first the block, then the token in it."""
    blocks = pad(probabilities, (0, -probabilities.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    cumulative = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    targets = uniforms * cumulative[:, -1:]
    block = _invert(cumulative, targets).clamp(max=blocks.shape[1] - 1)
    before = pad(cumulative, (1, 0)).gather(-1, block)
    within = blocks.gather(1, block.unsqueeze(-1).expand(-1, -1, BLOCK)).squeeze(1)
    cumulative = within.cumsum(-1, dtype=torch.float64)
    # The difference of two sums, each rounded, may reach the end of the block; a token of probability 0 must
    # not be drawn.
    last = (cumulative < cumulative[:, -1:]).sum(-1, keepdim=True)
    return block * BLOCK + _invert(cumulative, targets - before).minimum(last)


def _invert(cumulative: Tensor, targets: Tensor) -> Tensor:
    """Return the first column (N, 1) of (N, M) above the targets (N, 1)."""
    return torch.searchsorted(cumulative, targets, right=True)
