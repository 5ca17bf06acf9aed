"""Sampling with the training model itself: each prompt is run once, its cache serves all its completions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.decoding import start
from mm_cpgd.rollout.engine import Completion, Group, Sampling
from mm_cpgd.rollout.sampling import draw

# Share of finished completions that are decoded along before they are sorted out.
WASTE = 1 / 8


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
            for first in range(0, len(prompts), self.batch_prompts):
                part = slice(first, first + self.batch_prompts)
                groups += self._decode(prompts[part], sampling, seeds[part])
        return groups

    def _decode(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        policy, copies = self.policy, len(seeds[0])
        count, device = len(prompts) * copies, policy.device
        uniforms = _uniforms(seeds, sampling.max_new_tokens).to(device)
        forbidden = torch.tensor(policy.forbidden_ids, dtype=torch.long, device=device)
        ends = torch.tensor(policy.end_ids, device=device)
        tokens = torch.full((count, sampling.max_new_tokens), policy.pad_id, device=device)
        logprobs = torch.zeros(count, sampling.max_new_tokens, device=device)
        lengths = torch.zeros(count, dtype=torch.long, device=device)
        finished = torch.zeros(count, dtype=torch.bool, device=device)
        state = start(policy, prompts, copies, sampling.max_new_tokens)
        rows = torch.arange(count, device=device)  # that are still decoded
        for step in range(sampling.max_new_tokens):
            logits = state.logits.float()
            token = draw(logits.index_fill(-1, forbidden, -torch.inf), uniforms[rows, step], sampling)
            tokens[rows, step] = token
            logprobs[rows, step] = logits.log_softmax(-1).gather(-1, token.unsqueeze(-1)).squeeze(-1)
            lengths[rows] += ~finished[rows]
            finished[rows] |= torch.isin(token, ends)
            running = (~finished[rows]).nonzero().squeeze(1)
            if not len(running) or step + 1 == sampling.max_new_tokens:
                break
            if len(running) <= len(rows) * (1 - WASTE):
                state.keep(running)
                rows, token = rows[running], token[running]
            state.advance(token)
        return self._groups(tokens, logprobs, lengths, finished, copies)

    def _groups(
        self, tokens: Tensor, logprobs: Tensor, lengths: Tensor, finished: Tensor, copies: int
    ) -> list[Group]:
        sizes = lengths.tolist()
        # As lists: decoding a tensor is slower than sampling it, for a tiny model.
        own = [row[:length] for row, length in zip(tokens.tolist(), sizes, strict=True)]
        texts = self.policy.tokenizer.batch_decode(own, skip_special_tokens=True)
        rows = zip(tokens.cpu(), logprobs.cpu(), sizes, texts, finished.tolist(), strict=True)
        completions = [
            Completion(row[:length], values[:length], text, done) for row, values, length, text, done in rows
        ]
        return [completions[i : i + copies] for i in range(0, len(completions), copies)]


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
