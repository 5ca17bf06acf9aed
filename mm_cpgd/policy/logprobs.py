"""Log-probability and entropy of given tokens, computed in chunks so that never all logits exist at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mm_cpgd.policy.distribution import kept_mask

# Counts (M,) and ids of the tokens kept at M positions, see ``KeptTokens.at``.
Kept = tuple[Tensor, Tensor]


def token_logprobs(
    hidden: Tensor,
    head: nn.Module,
    targets: Tensor,
    *,
    chunk: int = 1024,
    entropy_gradient: bool = False,
    temperature: float = 1.0,
    forbidden: Tensor | None = None,
    kept: Kept | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute log π(target) and the entropy of π = softmax(z / T over the allowed tokens) at each position.

    Logits z of at most ``chunk`` positions exist at a time; the backward pass recomputes them.

    Args:
        hidden: (M, H) hidden states that predict the targets.
        head: maps (m, H) to logits (m, V).
        targets: (M,) token ids.
        chunk: positions whose logits exist at a time; memory is a few times chunk x V floats.
        entropy_gradient: whether the entropy carries a gradient; without it the backward pass is cheaper.
        temperature: T, by which the logits are divided.
        forbidden: ids of tokens that have probability 0 everywhere.
        kept: the tokens that the sampler's cuts left at each position; the others have probability 0.

    Returns:
        log-probabilities (M,) and entropies in nats (M,), float32 (float64 where the logits are).
    """
    chunks = []
    # Splitting an empty tensor yields one empty chunk, so the result still depends on hidden and head.
    parts = zip(hidden.split(chunk), targets.split(chunk), _split(kept, len(targets), chunk), strict=True)
    for states, tokens, own in parts:
        arguments = (states, head, tokens, temperature, forbidden, own)
        if torch.is_grad_enabled():
            chunks.append(checkpoint(_chunk, *arguments, entropy_gradient, use_reentrant=False))
        else:
            chunks.append(_chunk(*arguments, False))
    logprobs, entropies = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _split(kept: Kept | None, positions: int, chunk: int) -> Sequence[Kept | None]:
    if kept is None:
        return [None] * max(1, -(-positions // chunk))
    counts = kept[0].split(chunk)
    return list(zip(counts, kept[1].split([int(own.sum()) for own in counts]), strict=True))


def _chunk(
    states: Tensor,
    head: nn.Module,
    tokens: Tensor,
    temperature: float,
    forbidden: Tensor | None,
    kept: Kept | None,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor]:
    logits = allowed_logits(head(states), temperature, forbidden, kept)
    all_logprobs = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    logprobs = all_logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    # Without a gradient it is not recomputed: recomputation stops at the last tensor the backward pass needs.
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = entropy_of(all_logprobs)
    return logprobs, entropy


def allowed_logits(
    logits: Tensor, temperature: float = 1.0, forbidden: Tensor | None = None, kept: Kept | None = None
) -> Tensor:
    """Return logits (M, V) divided by the temperature, -inf where forbidden or cut, see ``token_logprobs``.

    Their softmax is π. The argument may be changed in place: nothing else needs it, and a copy costs as much
    as the softmax.
    """
    if temperature != 1:
        # In float32 already: a quotient in half precision would be rounded once more than the sampler's.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    if forbidden is not None and len(forbidden):
        logits = logits.index_fill_(-1, forbidden, -torch.inf)
    if kept is not None:
        logits = logits.masked_fill_(~kept_mask(*kept, logits.shape[-1]), -torch.inf)
    return logits


def entropy_of(logprobs: Tensor) -> Tensor:
    """Return the entropy in nats (M,) of distributions given by their log-probabilities (M, V)."""
    # A token of probability 0 contributes 0, where -inf · 0 would be NaN.
    finite = logprobs.clamp(min=torch.finfo(logprobs.dtype).min)
    # In place where no gradient needs the factors: a third less time in memory-bound (M, V) operations.
    return -(finite * logprobs.exp() if torch.is_grad_enabled() else finite.mul_(logprobs.exp())).sum(-1)
