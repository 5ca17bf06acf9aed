"""Log-probability and entropy of given tokens, computed in chunks so that never all logits exist at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from mm_cpgd.policy.distribution import draw_several, kept_mask

# Counts (M,) and ids of the tokens kept at M positions, see ``KeptTokens.at``.
Kept = tuple[Tensor, Tensor]

# Log-probability of which exp is 0 in every format, and whose product with a weight is finite in any.
LOWEST = -1e4


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
    options = _Options(temperature, forbidden, kept, chunk, entropy_gradient)
    if torch.is_grad_enabled() and _is_plain(head):
        logprobs, entropies = _HeadFunction.apply(hidden, head.weight, head.bias, targets, options)
        return logprobs, entropies if entropy_gradient else entropies.detach()
    chunks = []
    for states, tokens, own in _parts(hidden, targets, options):
        arguments = (states, head, tokens, temperature, forbidden, own)
        if torch.is_grad_enabled():
            chunks.append(checkpoint(_chunk, *arguments, entropy_gradient, use_reentrant=False))
        else:
            chunks.append(_chunk(*arguments, False))
    logprobs, entropies = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def drawn_logprobs(
    hidden: Tensor,
    head: nn.Module,
    targets: Tensor,
    uniforms: Tensor,
    *,
    draw_temperature: float = 1.0,
    chunk: int = 1024,
    entropy_gradient: bool = False,
    temperature: float = 1.0,
    forbidden: Tensor | None = None,
    kept: Kept | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw K tokens at each position too, and compute their log π, chunk by chunk as ``token_logprobs``.

    The draws are from softmax(z / (T·draw_temperature)), without gradient; their log π is that of π itself.
    The backward pass computes logits and draws again: a position's uniform numbers determine its tokens.

    Args:
        hidden: (M, H), as all further arguments like those of ``token_logprobs``.
        head: maps (m, H) to logits (m, V).
        targets: (M,) token ids.
        uniforms: (M, K) in [0, 1), one for each token to be drawn.
        draw_temperature: of the draws alone.
        chunk: positions whose logits exist at a time.
        entropy_gradient: whether the entropy carries a gradient.
        temperature: T.
        forbidden: ids of tokens that are never drawn.
        kept: the tokens that the sampler's cuts left at each position.

    Returns:
        log-probabilities and entropies (M,) as of ``token_logprobs``; log π (M, K) of the drawn tokens, and
        whether each of them is the target, (M, K) bool.
    """
    options = _Options(temperature, forbidden, kept, chunk, entropy_gradient)
    found = []
    for (states, tokens, own), numbers in zip(
        _parts(hidden, targets, options), uniforms.split(chunk), strict=True
    ):
        arguments = (states, head, tokens, numbers, draw_temperature, temperature, forbidden, own)
        if torch.is_grad_enabled():
            found.append(checkpoint(_drawn_chunk, *arguments, entropy_gradient, use_reentrant=False))
        else:
            found.append(_drawn_chunk(*arguments, False))
    logprobs, entropies, drawn, own_drawn = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logprobs, entropies, drawn, own_drawn


@dataclass(frozen=True)
class _Options:
    """Arguments of ``token_logprobs`` that carry no gradient."""

    temperature: float
    forbidden: Tensor | None
    kept: Kept | None
    chunk: int
    entropy_gradient: bool


def _is_plain(head: nn.Module) -> bool:
    """Return whether calling the head is a product with its weight on this process, and nothing else."""
    return (
        type(head) is nn.Linear
        and type(head.weight) is nn.Parameter
        and not (head._forward_hooks or head._forward_pre_hooks or head._backward_hooks)
    )


def _parts(
    hidden: Tensor, targets: Tensor, options: _Options
) -> Iterator[tuple[Tensor, Tensor, Kept | None]]:
    """Yield hidden states, targets and kept tokens chunk by chunk; of no positions, one empty chunk."""
    size = options.chunk
    kept = _split(options.kept, len(targets), size)
    # The empty chunk keeps the result dependent on hidden and head.
    return zip(hidden.split(size), targets.split(size), kept, strict=True)


def _split(kept: Kept | None, positions: int, chunk: int) -> Sequence[Kept | None]:
    if kept is None:
        return [None] * max(1, -(-positions // chunk))
    counts = kept[0].split(chunk)
    return list(zip(counts, kept[1].split([int(own.sum()) for own in counts]), strict=True))


class _HeadFunction(torch.autograd.Function):
    """Head (weight (V, H), bias (V,) or None) and softmax in one; hidden (M, H), targets (M,) → 2 x (M,).

    The backward pass computes each chunk's logits again and writes their gradient in their place:

        d log π(t) / d z = (1[t] - π) / T,        d entropy / d z = -π (log π + entropy) / T

    Checkpointed autograd would compute log-probabilities and entropies again too, and hold several tensors of
    the size of the logits. (Liger's fused cross-entropy, arXiv 2410.10989, knows its loss already in the
    forward pass; here each token's gradient comes from the objective.)
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: _Options
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        ctx.options = options
        ctx.save_for_backward(hidden, weight, bias, targets)
        matrix, shift = _cast(weight, bias, ctx.dtype)
        found = [
            _values(_logits(states, matrix, shift, options, own), tokens)
            for states, tokens, own in _parts(hidden.to(ctx.dtype), targets, options)
        ]
        logprobs, entropies = zip(*found, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        options, size = ctx.options, ctx.options.chunk
        matrix, shift = _cast(weight, bias, ctx.dtype)
        of_hidden: list[Tensor] = []
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        slopes = zip(*(grad.split(size) for grad in grads), strict=True)
        parts = _parts(hidden.to(ctx.dtype), targets, options)
        for (states, tokens, own), (of_logprob, of_entropy) in zip(parts, slopes, strict=True):
            logits = _logits(states, matrix, shift, options, own)
            of_logits = _gradient(logits, tokens, of_logprob, of_entropy, options).to(ctx.dtype)
            if ctx.needs_input_grad[0]:
                of_hidden.append((of_logits @ matrix).to(hidden.dtype))
            if of_weight is not None:
                of_weight += of_logits.T @ states
            if of_bias is not None:
                of_bias += of_logits.sum(0)
        return torch.cat(of_hidden) if of_hidden else None, of_weight, of_bias, None, None


def _cast(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _logits(
    states: Tensor, weight: Tensor, bias: Tensor | None, options: _Options, kept: Kept | None
) -> Tensor:
    """Return ``allowed_logits`` (m, V)."""
    with torch.autocast(states.device.type, enabled=False):
        logits = torch.nn.functional.linear(states, weight, bias)
    return allowed_logits(logits, options.temperature, options.forbidden, kept)


def _values(logits: Tensor, tokens: Tensor, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (m,) of the tokens and entropies (m,), in at least float32."""
    if not logits.requires_grad and (kernels := _kernels(logits)):
        found: tuple[Tensor, Tensor] = kernels.values(logits, tokens)
        return found
    all_logprobs = logits.log_softmax(-1, dtype=_precise(logits))
    logprobs = all_logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        return logprobs, entropy_of(all_logprobs)


def _kernels(logits: Tensor) -> Any:
    """Return the module of kernels if they run for these logits, else None."""
    if not logits.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return None
    from mm_cpgd.policy import head_kernels  # imports Triton

    return head_kernels if head_kernels.usable(logits) else None


def _precise(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _gradient(
    logits: Tensor, tokens: Tensor, of_logprob: Tensor, of_entropy: Tensor, options: _Options
) -> Tensor:
    """Return the gradient (m, V) of the logits before the temperature, from those of the two results (m,)."""
    if kernels := _kernels(logits):
        slopes = of_entropy / options.temperature if options.entropy_gradient else None
        gradient: Tensor = kernels.write_gradient(logits, tokens, of_logprob / options.temperature, slopes)
        return gradient
    rows = tokens.unsqueeze(-1)
    scale = of_logprob.unsqueeze(-1) / options.temperature
    if not options.entropy_gradient:
        return logits.softmax(-1, dtype=_precise(logits)).mul_(-scale).scatter_add_(-1, rows, scale)
    log = logits.log_softmax(-1, dtype=_precise(logits))
    probabilities = log.exp()
    finite = log.clamp_(min=LOWEST)
    entropy = -(finite * probabilities).sum(-1, keepdim=True)
    slope = of_entropy.unsqueeze(-1) / options.temperature
    return finite.add_(entropy).mul_(-slope).sub_(scale).mul_(probabilities).scatter_add_(-1, rows, scale)


def _chunk(
    states: Tensor,
    head: nn.Module,
    tokens: Tensor,
    temperature: float,
    forbidden: Tensor | None,
    kept: Kept | None,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor]:
    return _values(allowed_logits(head(states), temperature, forbidden, kept), tokens, entropy_gradient)


def _drawn_chunk(
    states: Tensor,
    head: nn.Module,
    tokens: Tensor,
    uniforms: Tensor,
    draw_temperature: float,
    temperature: float,
    forbidden: Tensor | None,
    kept: Kept | None,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = allowed_logits(head(states), temperature, forbidden, kept)
    with torch.no_grad():
        drawn = draw_several(logits.to(_precise(logits)) / draw_temperature, uniforms)
    all_logprobs = logits.log_softmax(-1, dtype=_precise(logits))
    logprobs = all_logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropies = entropy_of(all_logprobs)
    return logprobs, entropies, all_logprobs.gather(-1, drawn), drawn == tokens.unsqueeze(-1)


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
    finite = logprobs.clamp(min=LOWEST)
    # In place where no gradient needs the factors: a third less time in memory-bound (M, V) operations.
    return -(finite * logprobs.exp() if torch.is_grad_enabled() else finite.mul_(logprobs.exp())).sum(-1)
