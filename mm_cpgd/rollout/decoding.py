"""Incremental decoding with a key-value cache: each prompt is computed once for all its completions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mm_cpgd.policy import EncodedPrompt, Policy, collate_prompts
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix.attention import preferred_attention
from mm_cpgd.policy.shared_prefix.forward import hidden_states, rotary_cos_sin, run_layers
from mm_cpgd.policy.shared_prefix.packing import pack, pack_continued, unique_prompts
from mm_cpgd.rollout.merged_layers import MergedLayer, merged_layers
from mm_cpgd.rollout.seat_table import SeatTable
from mm_cpgd.rollout.shared_cache import PrefixRecorder, SharedCache

# Tokens by which the cache grows. Doubling would copy less, but copying costs little compared with reading
# the whole cache for every token, and half of a large cache would be unused.
CACHE_BLOCK = 64
# The same where kernels are recorded, which has to be repeated whenever the cache grows; then it doubles.
GRAPH_BLOCK = 256


class IncrementalDecoder(Protocol):
    """N completions decoded together, each in a place; their prompts are in slots of G seats each."""

    @property
    def version(self) -> int:
        """A number that changes whenever kernels recorded in ``advance`` become invalid."""
        ...

    def load(self, prompts: Sequence[EncodedPrompt], slots: Sequence[int]) -> None:
        """Prefill prompts and put them into these slots."""
        ...

    def start(self, places: Sequence[int], seats: Sequence[int]) -> Tensor:
        """Begin completions, g of slot p in seat p · G + g; return their first logits (n, V)."""
        ...

    def reserve(self, width: int, *, uniform: bool) -> None:
        """Make room for ``width`` tokens of each completion; ``uniform``: all have equally many."""
        ...

    def advance(self, tokens: Tensor, newest: Tensor) -> Tensor:
        """Append a token (N,), of this index (N,) in its completion; return the next one's logits (N, V)."""
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Drop all completions except those in these places."""
        ...


class SharedDecoder:
    """Completions share their prompt's keys and values; prompts are packed into one sequence.

    Args:
        policy: with ``shared_prefix``.
        prompts: all that will be loaded.
        places: N.
        slots: P.
        copies: G.
        limit: tokens of the longest completion.
        fixed: whether shapes stay as long as possible, for recorded kernels.
        together: whether all completions begin at once, so that they always have equally many tokens.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        *,
        places: int,
        slots: int,
        copies: int,
        limit: int,
        fixed: bool,
        together: bool = False,
    ) -> None:
        self.policy = policy
        self.together = together and not fixed
        self.language = language_model(policy.model)
        self.head = policy.model.get_output_embeddings()
        self.copies = copies
        self.limit = limit
        self.fixed = fixed
        self.cache = SharedCache(places, slots, copies, [len(prompt) for prompt in prompts], fixed=fixed)
        self.axes = prompts[0].positions.shape[0]
        self.last_position = max(prompt.next_position for prompt in prompts) + limit
        self.slots = slots
        self.first: Tensor | None = None  # logits (P, V) of the first token after each prompt
        self.merged: list[MergedLayer] | None = None
        self.table: SeatTable | None = None

    @property
    def version(self) -> int:
        """See ``IncrementalDecoder``."""
        return self.cache.version

    def load(self, prompts: Sequence[EncodedPrompt], slots: Sequence[int]) -> None:
        """See ``IncrementalDecoder``."""
        continued = [one for one in prompts if isinstance(one, ContinuedPrompt)]
        if len(continued) == len(prompts):
            hidden, last = self._load_continued(continued, slots)
        else:
            hidden, last = self._load_plain(prompts, slots)
        device = hidden.device
        logits = self.head(hidden[last.to(device)])
        if self.first is None:
            self._allocate(hidden, logits)
        assert self.first is not None
        index = torch.tensor(slots, device=device)
        self.first[index] = logits
        self.next_position[index] = torch.tensor([one.next_position for one in prompts], device=device)

    def _load_plain(self, prompts: Sequence[EncodedPrompt], slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return hidden states, and the index of each prompt's last token."""
        nothing = torch.zeros(0, 1, dtype=torch.long)
        batch = pack(prompts, nothing[:, 0], nothing, nothing.bool())
        recorder = PrefixRecorder(batch.layout, preferred_attention(self.language))
        hidden = hidden_states(self.policy.model, self.policy.vision_cache, prompts, batch, recorder)
        self.cache.write(recorder, slots)
        return hidden, torch.tensor(batch.layout.prefix_lengths).cumsum(0) - 1

    def _load_continued(
        self, prompts: Sequence[ContinuedPrompt], slots: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the same; what conversations have in common at their beginning is computed once."""
        batch, tokens, lengths = pack_continued(prompts)
        recorder = PrefixRecorder(batch.layout, preferred_attention(self.language))
        unique, _ = unique_prompts([one.prompt for one in prompts])
        hidden = hidden_states(self.policy.model, self.policy.vision_cache, unique, batch, recorder)
        self.cache.write(recorder, slots, tokens, lengths)
        return hidden, batch.predictors[batch.rows.argsort()]

    def _allocate(self, hidden: Tensor, logits: Tensor) -> None:
        device = hidden.device
        self.first = logits.new_zeros(self.slots, logits.shape[-1])
        self.next_position = torch.zeros(self.slots, dtype=torch.long, device=device)
        self.start_position = torch.zeros(self.cache.places, dtype=torch.long, device=device)
        # Of all positions that can occur; text has the same position on all axes.
        positions = torch.arange(self.last_position, device=device)
        self.cos_sin = rotary_cos_sin(self.language, hidden, positions.expand(self.axes, 1, -1))
        # Recorded kernels need no fewer operations, and older versions rotate by sections within the layers.
        plain = not self.fixed and self.cos_sin[0].dim() == 3
        self.merged = merged_layers(self.language) if plain else None

    def start(self, places: Sequence[int], seats: Sequence[int]) -> Tensor:
        """See ``IncrementalDecoder``."""
        assert self.first is not None
        self.cache.seat(places, seats)
        slots = torch.tensor(seats, device=self.first.device) // self.copies
        index = torch.tensor(places, device=self.first.device)
        self.start_position[index] = self.next_position[slots]
        if self.together and self.merged and SeatTable.suits(self.merged, self.cache, self.limit):
            self.table = SeatTable(self.merged, self.cache, self.limit)
        return self.first[slots]

    def reserve(self, width: int, *, uniform: bool) -> None:
        """See ``IncrementalDecoder``."""
        if self.table is not None:
            return
        room = GRAPH_BLOCK if self.fixed else -(-width // CACHE_BLOCK) * CACHE_BLOCK
        while room < width:
            room *= 2
        self.cache.reserve(width, room=min(room, max(width, self.limit)), uniform=uniform)

    def advance(self, tokens: Tensor, newest: Tensor) -> Tensor:
        """See ``IncrementalDecoder``; the packed sequence is one token of each completion."""
        embedded = self.language.embed_tokens(tokens.unsqueeze(0))
        positions = self.start_position + newest
        cosines, sines = (values.index_select(-2, positions) for values in self.cos_sin)
        if self.table is not None:
            found = self.table.step(embedded[0], cosines[0], sines[0])
            of_table: Tensor = self.head(self.language.norm(found))
            return of_table
        self.cache.begin(self.columns(newest))
        if self.merged is None:
            hidden = run_layers(self.language, embedded, (cosines, sines), self.cache)
        else:
            hidden = self._run_merged(embedded, cosines[0].unsqueeze(1), sines[0].unsqueeze(1))
        logits: Tensor = self.head(hidden[0])
        return logits

    def _run_merged(self, embedded: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Return what ``run_layers`` returns for embedded tokens (1, N, C), by the merged layers."""
        assert self.merged is not None
        hidden = embedded[0]
        for layer in self.merged:
            hidden = layer(hidden, cosines, sines, self.cache)
        normed: Tensor = self.language.norm(hidden.unsqueeze(0))
        return normed

    def columns(self, newest: Tensor) -> Tensor:
        """Return where in the cache the newest tokens (N,) are, which have this index in their completion."""
        return newest

    def keep(self, places: Sequence[int]) -> None:
        """See ``IncrementalDecoder``."""
        (self.cache if self.table is None else self.table).keep(places)
        self.start_position = self.start_position[torch.tensor(places, device=self.start_position.device)]


class PaddedDecoder:
    """For any family: prompts are padded on the left; each completion has a copy of its prompt's cache.

    All prompts are loaded at once, and all their completions started at once. ``reorder_cache`` copies and
    drops rows: every kind of cache has it for beam search, those with recurrent states or compressed keys
    too, where ``batch_repeat_interleave`` exists for keys and values alone.
    """

    version = 0

    def __init__(self, policy: Policy, copies: int) -> None:
        self.policy = policy
        self.model: Any = policy.model
        self.copies = copies
        # Renamed in transformers 5.24; the old name ends with 5.40.
        inputs = inspect.signature(self.model.forward).parameters
        self.cache_name = "cache" if "cache" in inputs else "past_key_values"

    def load(self, prompts: Sequence[EncodedPrompt], slots: Sequence[int]) -> None:
        """See ``IncrementalDecoder``."""
        batch = collate_prompts(prompts, self.policy.pad_id)
        batch = {name: value.to(self.policy.device) for name, value in batch.items()}
        output = self.model(**batch, use_cache=True, logits_to_keep=1)
        self.cache = getattr(output, self.cache_name)
        self.first = output.logits[:, -1]
        self.mask = batch["attention_mask"]
        self.positions = torch.tensor([one.next_position for one in prompts], device=self.policy.device)
        self.axes = batch["position_ids"].shape[0] if batch["position_ids"].ndim == 3 else 0

    def start(self, places: Sequence[int], seats: Sequence[int]) -> Tensor:
        """See ``IncrementalDecoder``."""
        slots = torch.tensor(seats, device=self.mask.device) // self.copies
        if self.copies > 1:
            self.cache.reorder_cache(slots)
        self.mask, self.positions = self.mask[slots], self.positions[slots]
        first: Tensor = self.first[slots]
        return first

    def reserve(self, width: int, *, uniform: bool) -> None:
        """See ``IncrementalDecoder``; the cache grows by itself."""

    def advance(self, tokens: Tensor, newest: Tensor) -> Tensor:
        """See ``IncrementalDecoder``."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        positions = self.positions.unsqueeze(-1)
        output = self.model(
            input_ids=tokens.unsqueeze(-1),
            attention_mask=self.mask,
            position_ids=positions.expand(self.axes, -1, -1) if self.axes else positions,
            use_cache=True,
            **{self.cache_name: self.cache},
        )
        self.positions = self.positions + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, places: Sequence[int]) -> None:
        """See ``IncrementalDecoder``."""
        rows = torch.tensor(places, device=self.mask.device)
        self.cache.reorder_cache(rows)
        self.mask, self.positions = self.mask[rows], self.positions[rows]
