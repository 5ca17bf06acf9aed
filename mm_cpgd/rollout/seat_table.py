"""Decoding steps of small models on a CPU, with one table of keys for a prompt and its completions.

A step of a small model is a few hundred small operations, which cost more to start than to compute. Here a
layer takes twenty: completions lie side by side after their prompt in one table, so that attention is two
products and a softmax, and what an operation reads and writes has its place before the first step. A mask
takes the other completions' tokens away, for which there must be few of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mm_cpgd.rollout.merged_layers import MergedLayer
from mm_cpgd.rollout.shared_cache import SharedCache

# Most scores that completions have of each other's tokens in a layer: N · H · R · T. Beyond it they cost as
# much as the operations that are saved.
MOST_SCORES = 2**19


class SeatTable:
    """Keys and values of P prompts and of the completions in R seats of each, and the layers that use them.

    All completions begin together, and have equally many tokens. Of N completions, ``order`` has the seats
    among P · R; results for seats without one have no meaning.

    Args:
        layers: the merged layers, in order.
        cache: holds the prompts, and which seat each completion has.
        limit: T, tokens of the longest completion.

    Attributes:
        width: tokens of each completion that are in the table.
    """

    def __init__(self, layers: Sequence[MergedLayer], cache: SharedCache, limit: int) -> None:
        self.layers = layers
        self.limit = limit
        self.width = 0
        self.prompts, self.groups, self.longest, self.size = cache.keys[0].shape
        self.heads = layers[0].heads // self.groups  # that share a key
        self.lengths = cache.lengths
        self.padded = cache.padded
        room = (self.prompts, self.groups, self.longest + limit * cache.seats, self.size)
        # Keys with the tokens side by side, as products read them.
        self.keys = [like.new_empty(*room[:2], room[3], room[2]) for like in cache.keys]
        self.values = [like.new_empty(room) for like in cache.values]
        for mine, its in zip(self.keys, cache.keys, strict=True):
            mine[..., : self.longest] = its.transpose(2, 3)
        for mine, its in zip(self.values, cache.values, strict=True):
            mine[:, :, : self.longest] = its
        cache.keys, cache.values = [], []  # from now on they are here
        self._lay_out(cache.seats, cache.seat_of)

    @staticmethod
    def suits(layers: Sequence[MergedLayer], cache: SharedCache, limit: int) -> bool:
        """Return whether what completions see of each other is little."""
        rows = cache.slots * cache.seats
        return rows * layers[0].heads * cache.seats * limit <= MOST_SCORES

    @torch.inference_mode()  # an operation starts sooner than with gradients merely disabled
    def step(self, embedded: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Append a token of each completion; return what comes out of the last layer (N, C).

        Args:
            embedded: (N, C).
            cosines: (N, D) of the tokens' positions.
            sines: (N, D).
        """
        first = self.longest + self.width * self.seats
        self.width += 1
        if self.places is not None:
            embedded, cosines, sines = (one[self.places] for one in (embedded, cosines, sines))
        shape = (self.prompts, self.seats, 1, self.size)
        rotation = (cosines.reshape(shape), sines.reshape(shape))
        seen = first + self.seats
        hidden, mask = embedded, self.mask.narrow(2, 0, seen)
        for number, layer in enumerate(self.layers):
            self._project(number, layer.normed(hidden, 0), rotation, first)
            self._attend(number, mask, seen)
            hidden = layer.close(hidden, self.found)
        return hidden if self.order is None else hidden[self.order]

    def _project(self, number: int, normed: Tensor, rotation: tuple[Tensor, Tensor], first: int) -> None:
        """Compute the tokens' queries; put their keys and values into the table, from column ``first`` on."""
        layer, (cosines, sines) = self.layers[number], rotation
        layer.project(normed, self.projected)
        torch.mul(self.plain, cosines, out=self.turning)
        torch.addcmul(self.turning_query, self.turned_query, sines.unsqueeze(3), out=self.query_of_seat)
        keys = self.key_slots[number].narrow(1, first, self.seats)
        torch.addcmul(self.turning_key, self.turned_key, sines, out=keys)
        self.value_slots[number].narrow(1, first, self.seats).copy_(self.value)

    def _attend(self, number: int, mask: Tensor, seen: int) -> None:
        keys = self.flat_keys[number].narrow(2, 0, seen)
        weights = torch.baddbmm(mask, self.query, keys).softmax(-1)
        torch.bmm(weights, self.flat_values[number].narrow(1, 0, seen), out=self.attended)
        self.found_of_seat.copy_(self.attended_of_seat)

    def keep(self, places: Sequence[int]) -> None:
        """Drop all completions except these, and prompts without any."""
        by_prompt: dict[int, list[int]] = {}
        seats = [self.seat_of[place] for place in places]
        for seat in seats:
            by_prompt.setdefault(seat // self.seats, []).append(seat % self.seats)
        slots = sorted(by_prompt)
        most = max(map(len, by_prompt.values()))
        # Of a seat that stays empty: the tokens of any other.
        sources = torch.tensor([(by_prompt[slot] * most)[:most] for slot in slots])
        index = torch.tensor(slots)
        self.keys = [self._kept(values.transpose(2, 3), index, sources) for values in self.keys]
        self.keys = [values.transpose(2, 3).contiguous() for values in self.keys]
        self.values = [self._kept(values, index, sources) for values in self.values]
        self.lengths, self.prompts = self.lengths[index], len(slots)
        numbers = [slots.index(seat // self.seats) * most for seat in seats]
        inner = [by_prompt[seat // self.seats].index(seat % self.seats) for seat in seats]
        self._lay_out(most, [a + b for a, b in zip(numbers, inner, strict=True)])

    def _kept(self, values: Tensor, slots: Tensor, sources: Tensor) -> Tensor:
        """Return (P', K, L + T · R', D) of (P, K, L + T · R, D): these prompts, and of each these seats."""
        prompts, own = values[slots].split_with_sizes([self.longest, values.shape[2] - self.longest], 2)
        own = own.unflatten(2, (self.limit, self.seats))
        index = sources[:, None, None, :, None].expand(*own.shape[:3], -1, self.size)
        return torch.cat([prompts, own.gather(3, index).flatten(2, 3)], 2)

    def _lay_out(self, seats: int, seat_of: Sequence[int]) -> None:
        """Give everything that a step reads and writes its place."""
        self.seats, self.seat_of = seats, list(seat_of)
        self.order = self.places = None
        if self.seat_of != list(range(self.prompts * seats)):
            places = [0] * (self.prompts * seats)
            for place, seat in enumerate(self.seat_of):
                places[seat] = place
            self.order, self.places = torch.tensor(self.seat_of), torch.tensor(places)
        self.flat_keys = [values.flatten(0, 1) for values in self.keys]
        self.flat_values = [values.flatten(0, 1) for values in self.values]
        self.key_slots = [values.permute(0, 3, 1, 2) for values in self.keys]
        self.value_slots = [values.transpose(1, 2) for values in self.values]
        self.mask = self._mask()
        self._lay_out_projection()
        heads = (self.prompts, self.groups, seats, self.heads, self.size)
        new = self.keys[0].new_empty
        query, attended = new(heads), new(heads)
        self.query, self.attended = (one.flatten(2, 3).flatten(0, 1) for one in (query, attended))
        found = self.found = new(self.prompts * seats, self.groups * self.heads * self.size)
        self.query_of_seat, self.attended_of_seat = query.transpose(1, 2), attended.transpose(1, 2)
        self.found_of_seat = found.view(self.query_of_seat.shape)

    def _lay_out_projection(self) -> None:
        """The same of one product's columns: what is multiplied by cosines, what by sines, and values."""
        layer = self.layers[0]
        rotated, queries = layer.rotated // self.size, layer.heads
        count = 2 * rotated + self.groups
        self.projected = self.keys[0].new_empty(self.prompts * self.seats, count * self.size)
        heads = self.projected.view(self.prompts, self.seats, count, self.size)
        self.plain, turned, self.value = heads.split_with_sizes([rotated, rotated, self.groups], 2)
        self.turning = torch.empty_like(self.plain, memory_format=torch.contiguous_format)
        grouped = (self.groups, self.heads)
        self.turning_query = self.turning[:, :, :queries].unflatten(2, grouped)
        self.turning_key = self.turning[:, :, queries:]
        self.turned_query = turned[:, :, :queries].unflatten(2, grouped)
        self.turned_key = turned[:, :, queries:]

    def _mask(self) -> Tensor:
        """Return what is added to scores (1 or P · K, R · H / K, L + T · R): -inf for what is not seen."""
        own = torch.full((self.seats, self.seats), -torch.inf).fill_diagonal_(0.0)
        own = own.repeat_interleave(self.heads, 0).repeat(1, self.limit)
        prompt = torch.zeros(1, self.longest)
        if self.padded:
            after = torch.arange(self.longest) >= self.lengths.unsqueeze(1)
            prompt = prompt.expand(len(after), -1).masked_fill(after, -torch.inf)
            prompt = prompt.repeat_interleave(self.groups, 0)
        rows = prompt.unsqueeze(1).expand(-1, len(own), -1)
        return torch.cat([rows, own.expand(len(rows), -1, -1)], 2)
