"""Keys and values while completions are sampled: each prompt's once, and each completion's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm_cpgd.policy.shared_attention import SharedPrefix
from mm_cpgd.policy.stream import Layout

# Tokens for which room is made at a time. Twice the room each time would copy less, but copies are little
# beside reading the whole cache for every token, and half of a large cache would lie idle.
BLOCK = 64


class PrefixRecorder(SharedPrefix):
    """Attention within prefixes that keeps each layer's keys and values (S, K, D)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``Sharing``; layers come in their order."""
        self.keys.append(key[0].transpose(0, 1))
        self.values.append(value[0].transpose(0, 1))
        return super().attend(layer, query, key, value, scale)


class SharedCache:
    """What the newest token of each of N completions attends to: its prompt, and what it wrote so far.

    Args:
        prefixes: of P prompts.
        prompt_of: (N,) which of them each completion belongs to, in ascending order.
    """

    def __init__(self, prefixes: PrefixRecorder, prompt_of: Tensor) -> None:
        lengths = prefixes.layout.prefixes
        # (P, K, L, D) for each layer.
        self.keys = [_by_prompt(values, lengths) for values in prefixes.keys]
        self.values = [_by_prompt(values, lengths) for values in prefixes.values]
        self.outside = _outside(lengths, self.keys[0])
        self.length = 0
        # (N, K, room, D) for each layer.
        self.own_keys = [_empty(values, len(prompt_of)) for values in self.keys]
        self.own_values = [_empty(values, len(prompt_of)) for values in self.values]
        self._arrange(prompt_of)

    def _arrange(self, prompt_of: Tensor) -> None:
        """Give each completion a place in a table of P prompts by R completions; some places stay free."""
        self.prompt_of = prompt_of
        counts = torch.bincount(prompt_of, minlength=len(self.keys[0]))
        self.rows = int(counts.max())
        self.full = bool((counts == self.rows).all())
        first = (counts.cumsum(0) - counts)[prompt_of]
        self.place = prompt_of * self.rows + torch.arange(len(prompt_of), device=prompt_of.device) - first

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``Sharing``; the stream is one token of each completion."""
        self._append(layer, key, value)
        now = self.length + 1
        prefix_keys, prefix_values = self.keys[layer], self.values[layer]
        heads = prefix_keys.shape[1]
        query = query[0].transpose(0, 1).unflatten(1, (heads, -1)) * scale  # (N, K, H / K, D)
        own_keys, own_values = self.own_keys[layer][:, :, :now], self.own_values[layer][:, :, :now]
        scores = self._to_table(query) @ prefix_keys.transpose(-1, -2)  # (P, K, R · H / K, L)
        if self.outside is not None:
            scores.masked_fill_(self.outside, -torch.inf)
        own_scores = self._to_table(query @ own_keys.transpose(-1, -2))
        weights = torch.cat([scores, own_scores], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
        seen, own_seen = weights.split([scores.shape[-1], now], -1)
        out = self._from_table(seen @ prefix_values) + self._from_table(own_seen) @ own_values
        return out.flatten(1, 2).unsqueeze(0)

    def advance(self) -> None:
        """Count the token that all layers have taken in."""
        self.length += 1

    def keep(self, rows: Tensor) -> None:
        """Go on with these completions alone; prompts without any are let go."""
        prompts, prompt_of = self.prompt_of[rows].unique(return_inverse=True)
        if len(prompts) < len(self.keys[0]):
            self.keys = [values[prompts] for values in self.keys]
            self.values = [values[prompts] for values in self.values]
            self.outside = None if self.outside is None else self.outside[prompts]
        self.own_keys = [values[rows] for values in self.own_keys]
        self.own_values = [values[rows] for values in self.own_values]
        self._arrange(prompt_of)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> None:
        for caches, new in ((self.own_keys, key), (self.own_values, value)):
            if self.length == caches[layer].shape[2]:
                more = caches[layer].new_empty(*caches[layer].shape[:2], BLOCK, caches[layer].shape[3])
                caches[layer] = torch.cat([caches[layer], more], 2)
            caches[layer][:, :, self.length] = new[0].transpose(0, 1)

    def _to_table(self, values: Tensor) -> Tensor:
        """Put (N, K, g, X) into the table, (P, K, R · g, X)."""
        if not self.full:
            table = values.new_zeros(len(self.keys[0]) * self.rows, *values.shape[1:])
            values = table.index_copy_(0, self.place, values)
        return values.unflatten(0, (-1, self.rows)).transpose(1, 2).flatten(2, 3)

    def _from_table(self, table: Tensor) -> Tensor:
        """Take (P, K, R · g, X) back to (N, K, g, X)."""
        values = table.unflatten(2, (self.rows, -1)).transpose(1, 2).flatten(0, 1)
        return values if self.full else values[self.place]


def _empty(values: Tensor, count: int) -> Tensor:
    return values.new_empty(count, values.shape[1], 0, values.shape[3])


def _by_prompt(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Split (S, K, D) into prompts and pad them: (P, K, L, D)."""
    return pad_sequence(list(values.split(list(lengths))), batch_first=True).transpose(1, 2).contiguous()


def _outside(lengths: Sequence[int], like: Tensor) -> Tensor | None:
    """Return (P, 1, 1, L) True behind the end of each prompt; None where all are equally long."""
    if len(set(lengths)) == 1:
        return None
    ends = torch.tensor(lengths, device=like.device)
    return (torch.arange(like.shape[2], device=like.device) >= ends.unsqueeze(1))[:, None, None]
