"""Key-value cache of conversations: what is appended to one is computed alone, and it can be set aside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mm_cpgd.rollout.shared_cache import SharedCache


class ResumableCache(SharedCache):
    """Cache whose places are given to other conversations and back, with what they hold.

    The prompts' keys and values stay when none of their conversations has a place. See ``SharedCache``.
    """

    def hold_prompts(self) -> None:
        """Remember the prompts that have been written: those of all slots."""
        self._prompts = (list(self.keys), list(self.values), self.lengths, self.padding)
        self._slots = list(range(self.slots))

    def set_aside(self, places: Sequence[int], lengths: Sequence[int]) -> list[Tensor]:
        """Return copies (layers, 2, K, length, D) of the keys and values of each place's first tokens."""
        if not places:
            return []
        index = torch.tensor(places, device=self.lengths.device)
        most = max(lengths)
        layers = [
            torch.stack([keys[index, :, :most], values[index, :, :most]], 1)
            for keys, values in zip(self.own_keys, self.own_values, strict=True)
        ]
        return [
            torch.stack([layer[row, :, :, :length] for layer in layers]) for row, length in enumerate(lengths)
        ]

    def put_back(self, place: int, held: Tensor) -> None:
        """Write what ``set_aside`` has returned into a place with room for it."""
        length = held.shape[3]
        for layer, (keys, values) in enumerate(zip(self.own_keys, self.own_values, strict=True)):
            keys[place, :, :length], values[place, :, :length] = held[layer, 0], held[layer, 1]

    def arrange(self, places: Sequence[int], slots: Sequence[int]) -> None:
        """Go on with these places and further, empty ones.

        Args:
            places: those that stay, in their new order.
            slots: of each place its prompt; of those beyond ``places``, too.
        """
        device = self.own_keys[0].device
        self._use_prompts(sorted(set(slots)))
        index = torch.tensor(places, dtype=torch.long, device=device)
        more = len(slots) - len(places)
        for own in (self.own_keys, self.own_values):
            for layer, values in enumerate(own):
                kept = values[index]
                own[layer] = torch.cat([kept, kept.new_zeros(more, *kept.shape[1:])]) if more else kept
        taken = [0] * self.slots
        numbers = []
        for slot in map(self._slots.index, slots):
            numbers.append((slot, taken[slot]))
            taken[slot] += 1
        self.places, self.seats = len(slots), max(taken)
        self.seat_of, self.place_of = [0] * self.places, [0] * (self.slots * self.seats)
        self.seat_index = self.place_index = None
        self.version += 1
        self.seat(range(self.places), [slot * self.seats + number for slot, number in numbers])

    def _use_prompts(self, slots: list[int]) -> None:
        """Attend to the prompts of these slots alone."""
        if slots == self._slots:
            return
        keys, values, lengths, padding = self._prompts
        if len(slots) == len(lengths):
            self.keys, self.values, self.lengths, self.padding = list(keys), list(values), lengths, padding
        else:
            index = torch.tensor(slots, device=lengths.device)
            self.keys, self.values = ([table[index] for table in tables] for tables in (keys, values))
            self.lengths = lengths[index]
            self.padding = None if padding is None else padding[index]
        self._slots, self.slots = slots, len(slots)


class AppendedAttention:
    """Attention of tokens that are appended to conversations: to the prompt, the cache, and each other.

    Keys and values of the new tokens are written into the cache.

    Args:
        cache: has room for them.
        places: n, of the conversations.
        cached: tokens that each has in the cache.
        new: tokens that are appended to each.
    """

    def __init__(
        self, cache: ResumableCache, places: Sequence[int], cached: Sequence[int], new: Sequence[int]
    ) -> None:
        self.cache = cache
        device = cache.lengths.device
        lengths, before = torch.tensor(new), torch.tensor(cached)
        self.most = int(before.max())
        self.places = torch.tensor(places, device=device)
        self.tables = torch.tensor([cache.seat_of[place] // cache.seats for place in places], device=device)
        width = int(lengths.max())
        inside = torch.arange(width) < lengths.unsqueeze(1)
        self.inside = inside.flatten().nonzero().squeeze(1).to(device)
        # Of each appended token, where its key goes.
        steps = torch.arange(width).expand(len(new), -1)[inside]
        self.rows = self.places.repeat_interleave(lengths.to(device))
        self.columns = (before.repeat_interleave(lengths) + steps).to(device)
        self.shape = (len(new), width)
        self.mask = self._mask(before.to(device), lengths.to(device))

    def _mask(self, cached: Tensor, new: Tensor) -> Tensor:
        """Return (n, 1, M, L + C + M): what each of M appended tokens of each conversation attends to."""
        device, (count, width) = cached.device, self.shape

        def below(size: int, ends: Tensor) -> Tensor:
            return torch.arange(size, device=device) < ends.unsqueeze(1)

        before = torch.cat(
            [below(self.cache.longest, self.cache.lengths[self.tables]), below(self.most, cached)], 1
        )
        causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        own = causal & below(width, new).unsqueeze(1)
        own |= torch.eye(width, dtype=torch.bool, device=device)  # padding attends to itself, and is finite
        return torch.cat([before.unsqueeze(1).expand(count, width, -1), own], 2).unsqueeze(1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``; the packed sequence is all appended tokens."""
        cache = self.cache
        tables = ((cache.keys, cache.own_keys, key), (cache.values, cache.own_values, value))
        keys, values = (
            torch.cat(
                [
                    prompts[layer][self.tables],
                    own[layer][self.places, :, : self.most],
                    self._padded(new).transpose(1, 2),
                ],
                2,
            )
            for prompts, own, new in tables
        )
        for _, own, new in tables:
            own[layer][self.rows, :, self.columns] = new[0].transpose(0, 1)
        heads = keys.shape[1]
        # Heads that share keys become further queries, of which the keys need no copies.
        queries = self._padded(query).unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4)
        groups, width = queries.shape[2:4]
        mask = self.mask.unsqueeze(1).expand(-1, -1, groups, -1, -1).flatten(2, 3)
        out = scaled_dot_product_attention(queries.flatten(2, 3), keys, values, attn_mask=mask, scale=scale)
        out = out.unflatten(2, (groups, width)).permute(0, 3, 1, 2, 4).flatten(2, 3)
        return out.flatten(0, 1)[self.inside].unsqueeze(0)

    def _padded(self, values: Tensor) -> Tensor:
        """Return (1, K, S, D) as a padded table (n, M, K, D)."""
        flat = values[0].transpose(0, 1)
        padded = flat.new_zeros(self.shape[0] * self.shape[1], *flat.shape[1:])
        padded[self.inside] = flat
        return padded.unflatten(0, self.shape)
