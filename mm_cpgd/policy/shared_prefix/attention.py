"""Attention in which the completions of a prompt share its prefix: each sees the prefix and its own past.

The language model's layers come here by way of transformers' attention interface. Everything else in a layer
treats tokens one by one, so that one stream without padding serves all prompts and completions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mm_cpgd.policy.shared_prefix.kernels import Kernel, kernel_for, merge
from mm_cpgd.policy.shared_prefix.packing import Layout

# As the config of a language model names it; without a ``sharing`` it is transformers' sdpa.
NAME = "mm_cpgd_sdpa"
# From (S, …) to a view (B, T, …) of its tokens.
Cut = Callable[[Tensor], Tensor]


class Sharing(Protocol):
    """Decides what each token of a stream of S tokens attends to."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return (1, S, H, D) for query (1, H, S, D), key and value (1, K, S, D), with positions applied."""
        ...


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sharing: Sharing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as ``sharing`` says, or as transformers' sdpa does."""
    if sharing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    query, key, value = _cast(query, key, value)
    return sharing.attend(module.layer_idx, query, key, value, options["scaling"]), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def _cast(*values: Tensor) -> list[Tensor]:
    """Give all one number format: autocast's, as in torch's own attention."""
    device = values[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values[0].dtype
    return [value.to(dtype) for value in values]


@dataclass
class SharedPrefix:
    """Causal attention within each prefix; behind it, each completion sees the prefix and its own past."""

    layout: Layout

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``Sharing``."""
        flat = (value.squeeze(0).transpose(0, 1) for value in (query, key, value))
        out: Tensor = _Attend.apply(*flat, self.layout, scale)
        return out.unsqueeze(0)


class _Attend(torch.autograd.Function):
    """Query (S, H, D), key and value (S, K, D), layout, scale → (S, H, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        kernel = kernel_for(query.device.type, query.dtype, query.shape[-1])
        ctx.parts = _Parts(kernel, layout, scale)
        out, lse = ctx.parts.forward(query, key, value)
        ctx.save_for_backward(query, key, value, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.parts.backward(grads[0].contiguous(), *ctx.saved_tensors), None, None)


@dataclass(frozen=True)
class _Parts:
    """Three parts of the attention: prefixes to themselves, completions to their prefix and to themselves.

    What completions get from the two sets of keys is merged; prefix keys exist once for all of them.
    """

    kernel: Kernel
    layout: Layout
    scale: float

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return out (S, H, D) and lse (S, H)."""
        out = query.new_empty(query.shape)
        lse = out.new_empty(out.shape[:2], dtype=torch.promote_types(out.dtype, torch.float32))
        for prefix, group in self._prompts():
            keys, values = prefix(key), prefix(value)
            self._write((prefix(out), prefix(lse)), self._run(prefix(query), keys, values, causal=True))
            if group is not None:
                found = self._run(group(query), keys, values, causal=False)
                self._write((group(out), group(lse)), found)
        if self.layout.width:
            rows = (self._rows(values) for values in (query, key, value))
            own = [self._tokens(values) for values in self._run(*rows, causal=True)]
            behind = slice(self.layout.shared, None)
            out[behind], lse[behind] = merge(out[behind], lse[behind], *own)
        return out, lse

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the gradients of query, key and value, from that of ``out``."""
        inputs = (grad, query, key, value, out, lse)
        found = tuple(torch.empty_like(values) for values in (query, key, value))
        for prefix, group in self._prompts():
            own = self._run_back([prefix(values) for values in inputs], causal=True)
            if group is not None:
                keys = (prefix(key), prefix(value))
                cross = self._run_back(
                    [group(grad), group(query), *keys, group(out), group(lse)], causal=False
                )
                group(found[0]).copy_(cross[0])
                own[1] += cross[1]
                own[2] += cross[2]
            self._write([prefix(values) for values in found], own)
        if self.layout.width:
            rows = [self._rows(values) for values in inputs]
            if self.layout.pad is not None:
                self._silence(rows[0], rows[-1])
            of_query, *others = (self._tokens(values) for values in self._run_back(rows, causal=True))
            behind = slice(self.layout.shared, None)
            found[0][behind] += of_query
            self._write([values[behind] for values in found[1:]], others)
        return found

    def _run(self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> list[Tensor]:
        """Call the kernel with heads behind tokens, (B, T, H, D)."""
        heads_first = (values.transpose(1, 2) for values in (query, key, value))
        found = self.kernel.forward(*heads_first, scale=self.scale, causal=causal)
        return [values.transpose(1, 2) for values in found]

    def _run_back(self, inputs: Sequence[Tensor], *, causal: bool) -> list[Tensor]:
        heads_first = (values.transpose(1, 2) for values in inputs)
        found = self.kernel.backward(*heads_first, scale=self.scale, causal=causal)
        return [values.transpose(1, 2) for values in found]

    def _write(self, places: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        for place, value in zip(places, values, strict=True):
            place.copy_(value)

    def _prompts(self) -> Iterator[tuple[Cut, Cut | None]]:
        """Return for each prompt what cuts its prefix, and its completions, out of (S, …) as (B, T, …).

        Where all are equally long, they are one batch.
        """
        lengths, groups, shared = self.layout.prefixes, self.layout.groups, self.layout.shared
        if len(set(lengths)) == 1 and len(set(groups)) == 1:
            behind = _cut(len(groups), shared, shared + sum(groups)) if self.layout.width else None
            yield _cut(len(lengths), 0, shared), behind
            return
        start, group_start = 0, shared
        for length, group in zip(lengths, groups, strict=True):
            behind = _cut(1, group_start, group_start + group) if group else None
            yield _cut(1, start, start + length), behind
            start, group_start = start + length, group_start + group

    def _rows(self, values: Tensor) -> Tensor:
        """Put the completions' part of (S, …) into rows (N, W, …); what fills them up means nothing."""
        behind = values[self.layout.shared :]
        if self.layout.pad is not None:
            behind = behind.index_select(0, self.layout.pad)
        return behind.unflatten(0, (-1, self.layout.width))

    def _tokens(self, values: Tensor) -> Tensor:
        """Take rows (N, W, …) apart again into (M, …)."""
        flat = values.flatten(0, 1)
        return flat if self.layout.unpad is None else flat.index_select(0, self.layout.unpad)

    def _silence(self, grad: Tensor, lse: Tensor) -> None:
        """Let the queries that fill rows up give no gradient to the keys before them."""
        assert self.layout.unpad is not None
        filling = torch.ones(grad.shape[:2].numel(), dtype=torch.bool, device=grad.device)
        filling = filling.index_fill(0, self.layout.unpad, False).view(grad.shape[:2])
        grad[filling] = 0
        lse[filling] = torch.inf  # probabilities of 0: a score beyond a foreign lse could overflow


def _cut(batch: int, start: int, end: int) -> Cut:
    return lambda values: values[start:end].unflatten(0, (batch, -1))
