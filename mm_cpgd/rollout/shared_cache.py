"""Key-value cache of completions that share their prompt's keys and values, in tensors of fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.attention import SharedPrefixAttention
from mm_cpgd.policy.shared_prefix.blocks import Blocks
from mm_cpgd.policy.shared_prefix.packing import PackedLayout


class PrefixRecorder(SharedPrefixAttention):
    """Attention within prefixes that records each layer's keys and values (S, K, D)."""

    def __init__(self, layout: PackedLayout, preferred: str) -> None:
        super().__init__(layout, preferred)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``; layers must come in order."""
        self.keys.append(key[0].transpose(0, 1))
        self.values.append(value[0].transpose(0, 1))
        return super().attend(layer, query, key, value, scale)

    def blocks(self, like: Tensor, head: int, scale: float) -> Blocks | None:
        """See ``SharedPrefixAttention``; layers must come in order here too."""
        found = super().blocks(like, head, scale)
        return None if found is None else RecordingBlocks(found, self)


@dataclass(frozen=True)
class RecordingBlocks:
    """Blocks whose forward pass records the keys and values."""

    blocks: Blocks
    recorder: PrefixRecorder

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Blocks``."""
        self.recorder.keys.append(key)
        self.recorder.values.append(value)
        return self.blocks.forward(query, key, value)

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, ...]:
        """See ``Blocks``."""
        return self.blocks.backward(grad, query, key, value, out, lse)


class SharedCache:
    """Cache of N completions, and attention of each one's newest token to its prompt and to itself.

    Prompts lie in P slots. A slot has R seats, one for each completion of its prompt; attention to prompts
    is a product over this table. Within one ``version`` no tensor moves, and no shape changes.

    Args:
        places: N.
        slots: P.
        seats: R of each slot.
        prompt_lengths: of all prompts that will ever be in a slot.
        fixed: whether the whole room is attended to, so that no shape changes before it grows; else exactly
            the tokens that there are.

    Attributes:
        capacity: C, tokens of a completion that there is room for.
        width: W, the first of them that are attended to.
        uniform: whether the newest token of all places that matter has the index W - 1.
        version: changes whenever recorded kernels become invalid: with tensors, shapes or the layout.
    """

    def __init__(
        self, places: int, slots: int, seats: int, prompt_lengths: Sequence[int], *, fixed: bool
    ) -> None:
        self.places = places
        self.slots = slots
        self.seats = seats
        self.fixed = fixed
        self.longest = _aligned(max(prompt_lengths)) if fixed else max(prompt_lengths)
        self.padded = set(prompt_lengths) != {self.longest}
        self.capacity = 0
        self.width = 0
        self.uniform = False
        self.version = 0
        self.seat_of = [0] * places
        self.place_of = [0] * (slots * seats)
        self.identity = False
        # (P, K, L, D) and (N, K, C, D) for each layer.
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.lengths: Tensor  # (P,) tokens of each slot's prompt
        self.own_keys: list[Tensor] = []
        self.own_values: list[Tensor] = []
        self.padding: Tensor | None = None
        # Of the present step: where each place's newest key goes, and what is after it (N, 1, 1, W).
        self.column: Tensor | None = None
        self.future: Tensor | None = None
        # On the device: the seat of each place (N,), and the place in each seat (P · R,).
        # Of an empty seat any place, whose result is not used.
        self.seat_index: Tensor | None = None
        self.place_index: Tensor | None = None

    def write(
        self,
        prefixes: PrefixRecorder,
        slots: Sequence[int],
        tokens: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        """Put the keys and values of prompts into these slots.

        Args:
            prefixes: has seen them.
            slots: of each prompt.
            tokens: index in the recorded sequence of each token of each prompt, one prompt after the other;
                None: those of the prefixes, in order.
            lengths: (n,) tokens of each prompt; needed with ``tokens``.
        """
        if not self.keys:
            self._allocate(prefixes.keys[0], len(prefixes.keys))
        device = prefixes.keys[0].device
        if tokens is None or lengths is None:
            lengths = torch.tensor(prefixes.layout.prefix_lengths)
            tokens = None
        else:
            tokens = tokens.to(device)
        index = torch.tensor(slots)
        self.lengths[index.to(device)] = lengths.to(device)
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        columns = (torch.arange(int(lengths.sum())) - starts).to(device)
        rows = index.repeat_interleave(lengths).to(device)
        for tables, recorded in ((self.keys, prefixes.keys), (self.values, prefixes.values)):
            for table, new in zip(tables, recorded, strict=True):
                table[rows, :, columns] = new if tokens is None else new[tokens]
        if self.padding is not None:
            positions = torch.arange(self.longest, device=device)
            self.padding.copy_((positions >= self.lengths.unsqueeze(1))[:, None, None])

    def seat(self, places: Sequence[int], seats: Sequence[int]) -> None:
        """Assign places to seats of the table: r of slot p is number p · R + r."""
        for place, seat in zip(places, seats, strict=True):
            self.seat_of[place], self.place_of[seat] = seat, place
        identity = self.seat_of == list(range(self.slots * self.seats))
        self.version += identity != self.identity
        self.identity = identity
        self._copy_seats()

    def reserve(self, width: int, *, room: int, uniform: bool) -> None:
        """Make room for ``width`` tokens of each completion.

        Args:
            width: at least one more than the index of any token that is still to be attended to.
            room: tokens to make room for if there is too little.
            uniform: whether the newest token of all places that matter has the index ``width`` - 1.
        """
        if width > self.capacity:
            self._grow(_aligned(room) if self.fixed else room)
        if self.fixed:
            width, uniform = self.capacity, False
        self.version += (width, uniform) != (self.width, self.uniform)
        self.width, self.uniform = width, uniform

    def begin(self, newest: Tensor) -> None:
        """Begin a step, in which each place attends up to the index (N,) of its newest token."""
        self.column = self.future = None
        if self.uniform:
            return
        newest = newest.clamp(max=self.capacity - 1)
        self.column = newest  # (N,) tokens of the places; of recorded kernels (N · K,) rows of the cache
        if self.fixed:
            heads = self.own_keys[0].shape[1]
            first = torch.arange(self.places * heads, device=newest.device) * self.capacity
            self.column = (first.view(-1, heads) + newest.unsqueeze(1)).flatten()
        positions = torch.arange(self.width, device=newest.device)
        self.future = (positions > newest.unsqueeze(1))[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``; the packed sequence is one token of each completion."""
        self._append(self.own_keys[layer], key)
        self._append(self.own_values[layer], value)
        keys, values = self.keys[layer], self.values[layer]
        own_keys, own_values = (own[layer][:, :, : self.width] for own in (self.own_keys, self.own_values))
        query = query[0].transpose(0, 1).unflatten(1, (keys.shape[1], -1))  # (N, K, H / K, D)
        if scale != 1:
            query = query * scale
        scores = self._to_table(query) @ keys.transpose(-1, -2)  # (P, K, R · H / K, L)
        if self.padding is not None:
            scores.masked_fill_(self.padding, -torch.inf)
        own_scores = query @ own_keys.transpose(-1, -2)
        if self.future is not None:
            own_scores.masked_fill_(self.future, -torch.inf)
        both = torch.cat([scores, self._to_table(own_scores)], -1)
        weights = both.softmax(-1, dtype=torch.float32).to(value.dtype)
        prefix_weights, own_weights = weights.split([scores.shape[-1], self.width], -1)
        out = self._from_table(prefix_weights @ values) + self._from_table(own_weights) @ own_values
        return out.flatten(1, 2).unsqueeze(0)

    def keep(self, places: Sequence[int]) -> None:
        """Drop all places except these, and slots without any; no prompt can be written afterwards."""
        seats = [self.seat_of[place] for place in places]
        slots = sorted({seat // self.seats for seat in seats})
        taken = [0] * len(slots)
        numbers = []
        for seat in seats:
            slot = slots.index(seat // self.seats)
            numbers.append((slot, taken[slot]))
            taken[slot] += 1
        device = self.own_keys[0].device
        if len(slots) < self.slots:
            index = torch.tensor(slots, device=device)
            for tables in (self.keys, self.values):
                tables[:] = [table[index] for table in tables]
            self.lengths = self.lengths[index]
            self.padding = None if self.padding is None else self.padding[index]
        index = torch.tensor(places, device=device)
        for own in (self.own_keys, self.own_values):
            own[:] = [values[index] for values in own]
        self.places, self.slots, self.seats = len(places), len(slots), max(taken)
        self.seat_of, self.place_of = [0] * self.places, [0] * (self.slots * self.seats)
        self.seat_index = self.place_index = None
        self.version += 1
        self.seat(range(self.places), [slot * self.seats + number for slot, number in numbers])

    def _allocate(self, keys: Tensor, layers: int) -> None:
        _, heads, size = keys.shape
        # Zeros: what padding holds must be finite.
        shape = (self.slots, heads, self.longest, size)
        self.keys = [self._zero_keys(keys, shape) for _ in range(layers)]
        self.values = [keys.new_zeros(shape) for _ in range(layers)]
        own = [[keys.new_zeros(self.places, heads, 0, size) for _ in range(layers)] for _ in range(2)]
        self.own_keys, self.own_values = own
        self.lengths = torch.zeros(self.slots, dtype=torch.long, device=keys.device)
        if self.padded:
            shape = (self.slots, 1, 1, self.longest)
            self.padding = torch.zeros(shape, dtype=torch.bool, device=keys.device)

    def _zero_keys(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """Return zeros (n, K, L, D), with the tokens side by side where products on a CPU read them."""
        if self.fixed:
            return like.new_zeros(shape)
        return like.new_zeros(*shape[:2], shape[3], shape[2]).transpose(2, 3)

    def _grow(self, capacity: int) -> None:
        for layer, (keys, values) in enumerate(zip(self.own_keys, self.own_values, strict=True)):
            shape = (*values.shape[:2], capacity, values.shape[3])
            grown = self._zero_keys(keys, shape), values.new_zeros(shape)
            for new, old in zip(grown, (keys, values), strict=True):
                new[:, :, : self.capacity] = old
            self.own_keys[layer], self.own_values[layer] = grown
        self.capacity = capacity
        self.version += 1

    def _copy_seats(self) -> None:
        new = [torch.tensor(values).to(self.lengths.device) for values in (self.seat_of, self.place_of)]
        if self.seat_index is None or self.place_index is None:
            self.seat_index, self.place_index = new
        else:
            self.seat_index.copy_(new[0])
            self.place_index.copy_(new[1])

    def _append(self, cache: Tensor, new: Tensor) -> None:
        values = new[0].transpose(0, 1)  # (N, K, D)
        if self.column is None:
            cache[:, :, self.width - 1] = values
        elif not self.fixed:
            cache[torch.arange(self.places, device=values.device), :, self.column] = values
        else:
            cache.view(-1, cache.shape[-1]).index_copy_(0, self.column, values.flatten(0, 1))

    def _to_table(self, values: Tensor) -> Tensor:
        """Put (N, K, g, X) into the table (P, K, R · g, X)."""
        if not self.identity and self.place_index is not None:
            values = values.index_select(0, self.place_index)
        return values.unflatten(0, (-1, self.seats)).transpose(1, 2).flatten(2, 3)

    def _from_table(self, table: Tensor) -> Tensor:
        """Return the seats of the table (P, K, R · g, X) as (N, K, g, X)."""
        values = table.unflatten(2, (self.seats, -1)).transpose(1, 2).flatten(0, 1)
        if self.identity or self.seat_index is None:
            return values
        return values.index_select(0, self.seat_index)


def _aligned(length: int) -> int:
    """Round up to 16 bytes of half precision; matrix products with other row lengths are slower on a GPU."""
    return -(-length // 8) * 8
