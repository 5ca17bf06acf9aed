"""Incremental decoding with a key-value cache: each prompt is computed once for all its completions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm_cpgd.policy import EncodedPrompt, Policy, collate_prompts
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix.attention import SharedPrefixAttention
from mm_cpgd.policy.shared_prefix.forward import hidden_states, rotary_cos_sin, run_layers
from mm_cpgd.policy.shared_prefix.packing import PackedLayout, pack

# Tokens by which the cache grows. Doubling would copy less, but copying costs little compared with reading
# the whole cache for every token, and half of a large cache would be unused.
CACHE_BLOCK = 64


class IncrementalDecoder(Protocol):
    """N = P · G completions decoded in parallel; ``logits`` (N, V) predict the next token of each."""

    logits: Tensor

    def advance(self, tokens: Tensor) -> None:
        """Append one token (N,) to each completion and compute the next ``logits``."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop all completions except these rows; ``logits`` follow with the next ``advance``."""
        ...


def prefill(policy: Policy, prompts: Sequence[EncodedPrompt], copies: int, limit: int) -> IncrementalDecoder:
    """Prefill the prompts, for ``copies`` completions of each, of at most ``limit`` tokens."""
    if policy.shared_prefix:
        return SharedDecoder(policy, prompts, copies, limit)
    return PaddedDecoder(policy, prompts, copies)


class SharedDecoder:
    """Completions share their prompt's keys and values; prompts are packed into one sequence."""

    def __init__(self, policy: Policy, prompts: Sequence[EncodedPrompt], copies: int, limit: int) -> None:
        self.language = language_model(policy.model)
        self.head = policy.model.get_output_embeddings()
        nothing = torch.zeros(0, 1, dtype=torch.long)
        batch = pack(prompts, nothing[:, 0], nothing, nothing.bool())
        recorder = PrefixRecorder(batch.layout)
        hidden = hidden_states(policy.model, policy.vision_cache, prompts, batch, recorder)
        lengths = torch.tensor(batch.layout.prefix_lengths, device=hidden.device)
        prompt_of = torch.arange(len(prompts), device=hidden.device).repeat_interleave(copies)
        self.cache = SharedCache(recorder, prompt_of)
        self.logits: Tensor = self.head(hidden[lengths.cumsum(0) - 1]).repeat_interleave(copies, 0)
        next_position = torch.tensor([prompt.next_position for prompt in prompts], device=hidden.device)
        self.positions = next_position[prompt_of]
        # Of all positions that can occur; text has the same position on all axes.
        all_positions = torch.arange(int(next_position.max()) + limit, device=hidden.device)
        axes = batch.positions.shape[0]
        self.cos_sin = rotary_cos_sin(self.language, hidden, all_positions.expand(axes, 1, -1))

    def advance(self, tokens: Tensor) -> None:
        """See ``IncrementalDecoder``; the packed sequence is one token of each completion."""
        embedded = self.language.embed_tokens(tokens.unsqueeze(0))
        cosines, sines = (values.index_select(-2, self.positions) for values in self.cos_sin)
        hidden = run_layers(self.language, embedded, (cosines, sines), self.cache)
        self.cache.advance()
        self.logits = self.head(hidden[0])
        self.positions = self.positions + 1

    def keep(self, rows: Tensor) -> None:
        """See ``IncrementalDecoder``."""
        self.cache.keep(rows)
        self.positions = self.positions[rows]


class PaddedDecoder:
    """For any family: prompts are padded on the left; each completion has a copy of its prompt's cache.

    ``reorder_cache`` copies and drops rows: every kind of cache has it for beam search, those with recurrent
    states or compressed keys too, where ``batch_repeat_interleave`` exists for keys and values alone.
    """

    def __init__(self, policy: Policy, prompts: Sequence[EncodedPrompt], copies: int) -> None:
        self.model: Any = policy.model
        batch = collate_prompts(prompts, policy.pad_id)
        batch = {name: value.to(policy.device) for name, value in batch.items()}
        # Renamed in transformers 5.24; the old name ends with 5.40.
        inputs = inspect.signature(self.model.forward).parameters
        self.cache_name = "cache" if "cache" in inputs else "past_key_values"
        output = self.model(**batch, use_cache=True, logits_to_keep=1)
        self.cache = getattr(output, self.cache_name)
        if copies > 1:
            rows = torch.arange(len(prompts), device=policy.device)
            self.cache.reorder_cache(rows.repeat_interleave(copies))
        self.logits: Tensor = output.logits[:, -1].repeat_interleave(copies, 0)
        self.mask = batch["attention_mask"].repeat_interleave(copies, 0)
        next_position = torch.tensor([prompt.next_position for prompt in prompts], device=policy.device)
        self.positions = next_position.repeat_interleave(copies)
        self.axes = batch["position_ids"].shape[0] if batch["position_ids"].ndim == 3 else 0

    def advance(self, tokens: Tensor) -> None:
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
        self.logits = output.logits[:, -1]
        self.positions = self.positions + 1

    def keep(self, rows: Tensor) -> None:
        """See ``IncrementalDecoder``."""
        self.cache.reorder_cache(rows)
        self.mask, self.positions = self.mask[rows], self.positions[rows]


class PrefixRecorder(SharedPrefixAttention):
    """Attention within prefixes that records each layer's keys and values (S, K, D)."""

    def __init__(self, layout: PackedLayout) -> None:
        super().__init__(layout)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``; layers must come in order."""
        self.keys.append(key[0].transpose(0, 1))
        self.values.append(value[0].transpose(0, 1))
        return super().attend(layer, query, key, value, scale)


class SharedCache:
    """Key-value cache of N completions, and attention of each one's newest token to its prompt and itself.

    Args:
        prefixes: keys and values of P prompts.
        prompt_of: (N,) index of each completion's prompt, in ascending order.
    """

    def __init__(self, prefixes: PrefixRecorder, prompt_of: Tensor) -> None:
        lengths = prefixes.layout.prefix_lengths
        # (P, K, L, D) for each layer.
        self.keys = [_by_prompt(values, lengths) for values in prefixes.keys]
        self.values = [_by_prompt(values, lengths) for values in prefixes.values]
        self.padding = _padding(lengths, self.keys[0])
        self.length = 0
        # (N, K, capacity, D) for each layer.
        self.own_keys = [_empty(values, len(prompt_of)) for values in self.keys]
        self.own_values = [_empty(values, len(prompt_of)) for values in self.values]
        self._assign_slots(prompt_of)

    def _assign_slots(self, prompt_of: Tensor) -> None:
        """Assign each completion a slot in a table of P prompts by R slots; some slots may stay empty."""
        self.prompt_of = prompt_of
        counts = torch.bincount(prompt_of, minlength=len(self.keys[0]))
        self.rows = int(counts.max())
        self.full = bool((counts == self.rows).all())
        first = (counts.cumsum(0) - counts)[prompt_of]
        self.slot = prompt_of * self.rows + torch.arange(len(prompt_of), device=prompt_of.device) - first

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``; the packed sequence is one token of each completion."""
        self._append(layer, key, value)
        now = self.length + 1
        prefix_keys, prefix_values = self.keys[layer], self.values[layer]
        heads = prefix_keys.shape[1]
        query = query[0].transpose(0, 1).unflatten(1, (heads, -1)) * scale  # (N, K, H / K, D)
        own_keys, own_values = self.own_keys[layer][:, :, :now], self.own_values[layer][:, :, :now]
        scores = self._to_table(query) @ prefix_keys.transpose(-1, -2)  # (P, K, R · H / K, L)
        if self.padding is not None:
            scores.masked_fill_(self.padding, -torch.inf)
        own_scores = self._to_table(query @ own_keys.transpose(-1, -2))
        weights = torch.cat([scores, own_scores], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
        prefix_weights, own_weights = weights.split([scores.shape[-1], now], -1)
        out = self._from_table(prefix_weights @ prefix_values) + self._from_table(own_weights) @ own_values
        return out.flatten(1, 2).unsqueeze(0)

    def advance(self) -> None:
        """Count the token that all layers have appended."""
        self.length += 1

    def keep(self, rows: Tensor) -> None:
        """Drop all completions except these rows, and prompts without any."""
        prompts, prompt_of = self.prompt_of[rows].unique(return_inverse=True)
        if len(prompts) < len(self.keys[0]):
            self.keys = [values[prompts] for values in self.keys]
            self.values = [values[prompts] for values in self.values]
            self.padding = None if self.padding is None else self.padding[prompts]
        self.own_keys = [values[rows] for values in self.own_keys]
        self.own_values = [values[rows] for values in self.own_values]
        self._assign_slots(prompt_of)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> None:
        for caches, new in ((self.own_keys, key), (self.own_values, value)):
            cache = caches[layer]
            if self.length == cache.shape[2]:
                block = cache.new_empty(*cache.shape[:2], CACHE_BLOCK, cache.shape[3])
                caches[layer] = torch.cat([cache, block], 2)
            caches[layer][:, :, self.length] = new[0].transpose(0, 1)

    def _to_table(self, values: Tensor) -> Tensor:
        """Put (N, K, g, X) into the table (P, K, R · g, X)."""
        if not self.full:
            table = values.new_zeros(len(self.keys[0]) * self.rows, *values.shape[1:])
            values = table.index_copy_(0, self.slot, values)
        return values.unflatten(0, (-1, self.rows)).transpose(1, 2).flatten(2, 3)

    def _from_table(self, table: Tensor) -> Tensor:
        """Return the slots of the table (P, K, R · g, X) as (N, K, g, X)."""
        values = table.unflatten(2, (self.rows, -1)).transpose(1, 2).flatten(0, 1)
        return values if self.full else values[self.slot]


def _empty(values: Tensor, count: int) -> Tensor:
    return values.new_empty(count, values.shape[1], 0, values.shape[3])


def _by_prompt(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Split (S, K, D) into prompts and pad them: (P, K, L, D)."""
    return pad_sequence(list(values.split(list(lengths))), batch_first=True).transpose(1, 2).contiguous()


def _padding(lengths: Sequence[int], keys: Tensor) -> Tensor | None:
    """Return (P, 1, 1, L), True after the end of each prompt; None if all have the same length."""
    if len(set(lengths)) == 1:
        return None
    ends = torch.tensor(lengths, device=keys.device)
    return (torch.arange(keys.shape[2], device=keys.device) >= ends.unsqueeze(1))[:, None, None]
