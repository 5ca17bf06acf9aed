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
        chunk: positions whose logits are held together; memory is chunk x V floats.
        entropy_gradient: whether the entropy carries a gradient; without it the entropy is free to ignore.

    Returns:
        log-probabilities (M,) and entropies in nats (M,), both float32.
    """
    logprobs, entropies = [], []
    for states, tokens in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if torch.is_grad_enabled():
            pair = checkpoint(_chunk, states, head, tokens, entropy_gradient, use_reentrant=False)
        else:
            pair = _chunk(states, head, tokens, False)
        logprobs.append(pair[0])
        entropies.append(pair[1])
    if not logprobs:
        empty = hidden.new_zeros(0, dtype=torch.float32)
        return empty, empty
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(states: Tensor, head: nn.Module, tokens: Tensor, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    normaliser = logits.logsumexp(-1)
    logprobs = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - normaliser
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        probabilities = (logits - normaliser.unsqueeze(-1)).exp()
        entropy = normaliser - (probabilities * logits).sum(-1)
    return logprobs, entropy
