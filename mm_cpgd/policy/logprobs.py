"""Log-probability and entropy of given tokens without ever holding all logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    hidden: Tensor, head: nn.Module, targets: Tensor, *, chunk: int = 1024, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute log π(target) and the entropy of π at each position.

    Logits of at most ``chunk`` positions exist at one time; the backward pass computes them again.

    Args:
        hidden: (M, H) hidden states that predict the targets.
        head: maps (m, H) to logits (m, V).
        targets: (M,) token ids.
        chunk: positions whose logits are held together; memory is a few times chunk x V floats.
        entropy_gradient: whether the entropy carries a gradient; without it the backward pass is cheaper.

    Returns:
        log-probabilities (M,) and entropies in nats (M,), float32 (float64 where the logits are).
    """
    parts = []
    # Of an empty tensor, split gives one empty part: the result still hangs on hidden and head.
    for states, tokens in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(_chunk, states, head, tokens, entropy_gradient, use_reentrant=False))
        else:
            parts.append(_chunk(states, head, tokens, False))
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(states: Tensor, head: nn.Module, tokens: Tensor, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
    logits = head(states)
    everything = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    logprobs = everything.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    # Without a gradient it is not computed again: recomputation ends with what the backward pass needs.
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = entropy_of(everything)
    return logprobs, entropy


def entropy_of(logprobs: Tensor) -> Tensor:
    """Entropy in nats (M,) of distributions given by their log-probabilities (M, V)."""
    return -(logprobs.exp() * logprobs).sum(-1)
