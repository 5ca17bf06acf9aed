"""Incremental decoding and its key-value cache: each prompt is run once for all of its completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm_cpgd.policy import EncodedPrompt, Policy, collate_prompts
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix.attention import SharedPrefix
from mm_cpgd.policy.shared_prefix.forward import hidden_states, run_layers, turns
from mm_cpgd.policy.shared_prefix.packing import Layout, lay_out


class Decoding(Protocol):
    """N = P · G completions that grow together; ``logits`` (N, V) predict the next token of each."""

    logits: Tensor

    def advance(self, tokens: Tensor) -> None:
        """Run one token (N,) of each completion."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these completions alone; ``logits`` are theirs after the next ``advance``."""
        ...


def start(policy: Policy, prompts: Sequence[EncodedPrompt], copies: int, limit: int) -> Decoding:
    """Run the prompts for so many completions of each, of at most ``limit`` tokens."""
    if policy.shared_prefix:
        return SharedDecoding(policy, prompts, copies, limit)
    return PaddedDecoding(policy, prompts, copies)


class SharedDecoding:
    """Completions share their prompt's keys and values; prompts are run as one stream without padding."""

    def __init__(self, policy: Policy, prompts: Sequence[EncodedPrompt], copies: int, limit: int) -> None:
        self.language = language_model(policy.model)
        self.head = policy.model.get_output_embeddings()
        nothing = torch.zeros(0, 1, dtype=torch.long)
        stream = lay_out(prompts, nothing[:, 0], nothing, nothing.bool())
        recorder = PrefixRecorder(stream.layout)
        hidden = hidden_states(policy.model, policy.sight, prompts, stream, recorder)
        lengths = torch.tensor(stream.layout.prefixes, device=hidden.device)
        prompt_of = torch.arange(len(prompts), device=hidden.device).repeat_interleave(copies)
        self.cache = SharedCache(recorder, prompt_of)
        self.logits: Tensor = self.head(hidden[lengths.cumsum(0) - 1]).repeat_interleave(copies, 0)
        following = torch.tensor([prompt.next_position for prompt in prompts], device=hidden.device)
        self.positions = following[prompt_of]
        # Of every position that may come: text has the same one on all axes.
        every = torch.arange(int(following.max()) + limit, device=hidden.device)
        self.turns = turns(self.language, hidden, every.expand(stream.positions.shape[0], 1, -1))

    def advance(self, tokens: Tensor) -> None:
        """See ``Decoding``; the stream is one token of each completion."""
        embedded = self.language.embed_tokens(tokens.unsqueeze(0))
        cosines, sines = (values.index_select(-2, self.positions) for values in self.turns)
        hidden = run_layers(self.language, embedded, (cosines, sines), self.cache)
        self.cache.advance()
        self.logits = self.head(hidden[0])
        self.positions = self.positions + 1

    def keep(self, rows: Tensor) -> None:
        """See ``Decoding``."""
        self.cache.keep(rows)
        self.positions = self.positions[rows]


class PaddedDecoding:
    """Any family: prompts are padded on the left, and each completion has a copy of its prompt's cache."""

    def __init__(self, policy: Policy, prompts: Sequence[EncodedPrompt], copies: int) -> None:
        self.model: Any = policy.model
        batch = collate_prompts(prompts, policy.pad_id)
        batch = {name: value.to(policy.device) for name, value in batch.items()}
        output = self.model(**batch, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        self.cache.batch_repeat_interleave(copies)
        self.logits: Tensor = output.logits[:, -1].repeat_interleave(copies, 0)
        self.mask = batch["attention_mask"].repeat_interleave(copies, 0)
        following = torch.tensor([prompt.next_position for prompt in prompts], device=policy.device)
        self.position = following.repeat_interleave(copies)
        self.axes = batch["position_ids"].shape[0] if batch["position_ids"].ndim == 3 else 0

    def advance(self, tokens: Tensor) -> None:
        """See ``Decoding``."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        positions = self.position.unsqueeze(-1)
        output = self.model(
            input_ids=tokens.unsqueeze(-1),
            attention_mask=self.mask,
            position_ids=positions.expand(self.axes, -1, -1) if self.axes else positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits = output.logits[:, -1]
        self.position = self.position + 1

    def keep(self, rows: Tensor) -> None:
        """See ``Decoding``."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]


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
