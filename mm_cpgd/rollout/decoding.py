"""The model's side of sampling: prompts are run once, then one token of each completion at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mm_cpgd.policy import EncodedPrompt, Policy, collate_prompts
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix import hidden_states, run_layers, turns
from mm_cpgd.policy.stream import lay_out
from mm_cpgd.rollout.cache import PrefixRecorder, SharedCache


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
