"""Sampling with the training model itself: each prompt is run once, its cache serves all its completions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.policy.batch import EncodedPrompt, collate_prompts
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.engine import Completion, Group, Sampling
from mm_cpgd.rollout.sampling import draw


class LocalEngine:
    """Samples with the policy's own weights.

    Args:
        policy: the live policy; updates are seen at once.
        batch_prompts: prompts decoded together.
    """

    def __init__(self, policy: Policy, batch_prompts: int = 32) -> None:
        self.policy = policy
        self.batch_prompts = batch_prompts

    def load_weights(self, policy: Policy) -> None:
        """Nothing to copy: the engine samples from the policy itself."""
        self.policy = policy

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``; prompts of a call must have equally many completions."""
        counts = [len(group) for group in seeds]
        if len(counts) != len(prompts) or len(set(counts)) > 1:
            raise ValueError(f"{len(prompts)} prompts with {counts} seeds; every prompt needs equally many")
        groups: list[Group] = []
        with _evaluation_mode(self.policy):
            for start in range(0, len(prompts), self.batch_prompts):
                part = slice(start, start + self.batch_prompts)
                groups += self._decode(prompts[part], sampling, seeds[part])
        return groups

    def _decode(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        copies = len(seeds[0])
        uniforms = _uniforms(seeds, sampling.max_new_tokens).to(self.policy.device)
        state = _Decoding(self.policy, prompts, copies)
        forbidden = torch.tensor(self.policy.forbidden_ids, dtype=torch.long, device=self.policy.device)
        ends = torch.tensor(self.policy.end_ids, device=self.policy.device)
        tokens, logprobs, alive = [], [], []
        running = torch.ones(len(prompts) * copies, dtype=torch.bool, device=self.policy.device)
        for step in range(sampling.max_new_tokens):
            logits = state.logits.float()
            token = draw(logits.index_fill(-1, forbidden, -torch.inf), uniforms[:, step], sampling)
            tokens.append(torch.where(running, token, self.policy.pad_id))
            logprobs.append(logits.log_softmax(-1).gather(-1, token.unsqueeze(-1)).squeeze(-1))
            alive.append(running)
            running = running & ~torch.isin(token, ends)
            if not running.any() or step + 1 == sampling.max_new_tokens:
                break
            state.advance(tokens[-1])
        mask = torch.stack(alive, 1)
        return self._groups(torch.stack(tokens, 1), torch.stack(logprobs, 1), mask, ~running, copies)

    def _groups(
        self, tokens: Tensor, logprobs: Tensor, mask: Tensor, finished: Tensor, copies: int
    ) -> list[Group]:
        lengths = mask.sum(1).tolist()
        # As lists: decoding a tensor is slower than sampling it, for a tiny model.
        own = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
        texts = self.policy.tokenizer.batch_decode(own, skip_special_tokens=True)
        rows = zip(tokens.cpu(), logprobs.cpu(), lengths, texts, finished.tolist(), strict=True)
        completions = [
            Completion(row[:length], values[:length], text, done) for row, values, length, text, done in rows
        ]
        return [completions[i : i + copies] for i in range(0, len(completions), copies)]


class _Decoding:
    """The cache and the positions of N = P·G rows; ``logits`` (N, V) predict each row's next token."""

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
        """Run one token (N,) of each row."""
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


@contextlib.contextmanager
def _evaluation_mode(policy: Policy) -> Iterator[None]:
    """Sample in evaluation mode: in training mode gradient checkpointing would switch the cache off."""
    training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(training)


def _uniforms(seeds: Sequence[Sequence[int]], count: int) -> Tensor:
    """Return (N, count) numbers in [0, 1), each row from its own seed alone."""
    rows = [
        torch.rand(count, generator=torch.Generator().manual_seed(seed)) for group in seeds for seed in group
    ]
    return torch.stack(rows)
