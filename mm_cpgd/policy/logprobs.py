"""Log-probability and entropy of given tokens, computed in chunks so that never all logits exist at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    hidden: Tensor, head: nn.Module, targets: Tensor, *, chunk: int = 1024, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute log π(target) and the entropy of π at each position.

    Logits of at most ``chunk`` positions exist at a time; the backward pass recomputes them.

    Args:
        hidden: (M, H) hidden states that predict the targets.
        head: maps (m, H) to logits (m, V).
        targets: (M,) token ids.
        chunk: positions whose logits exist at a time; memory is a few times chunk x V floats.
        entropy_gradient: whether the entropy carries a gradient; without it the backward pass is cheaper.

    Returns:
        log-probabilities (M,) and entropies in nats (M,), float32 (float64 where the logits are).
    """
    chunks = []
    # Splitting an empty tensor yields one empty chunk, so the result still depends on hidden and head.
    for states, tokens in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if torch.is_grad_enabled():
            chunks.append(checkpoint(_chunk, states, head, tokens, entropy_gradient, use_reentrant=False))
        else:
            chunks.append(_chunk(states, head, tokens, False))
    logprobs, entropies = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(states: Tensor, head: nn.Module, tokens: Tensor, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
    logits = head(states)
    all_logprobs = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    logprobs = all_logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    # Without a gradient it is not recomputed: recomputation stops at the last tensor the backward pass needs.
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = entropy_of(all_logprobs)
    return logprobs, entropy


def entropy_of(logprobs: Tensor) -> Tensor:
    """Return the entropy in nats (M,) of distributions given by their log-probabilities (M, V)."""
    return -(logprobs.exp() * logprobs).sum(-1)
