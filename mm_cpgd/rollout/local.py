"""Local sampling engine: the training model itself samples, each prompt run once for its completions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.decoding import start
from mm_cpgd.rollout.engine import Completion, Group, Sampling

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


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Draw by inverting the cumulative distribution, so that a row's uniform number fixes its token.

    Args:
        logits: (N, V) float32; forbidden tokens already at -inf.
        uniforms: (N,) in [0, 1).
        sampling: temperature divides first; then top-k, top-p and min-p cut, each on the probabilities that
            the one before left. Top-k keeps all tokens that tie with the k-th; top-p keeps the token that
            crosses the threshold; min-p is relative to the most probable token.

    Returns:
        (N,) token ids.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = _cut((logits / sampling.temperature).softmax(-1), sampling)
    # In float64: over 150,000 tokens a float32 sum would drift, and u times the total could round up to it.
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    wanted = uniforms.unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, wanted, right=True).squeeze(-1)
    # Only logits that are not finite lead past the end; the caller sees them in the log-probabilities.
    return tokens.clamp(max=logits.shape[-1] - 1)


def _cut(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """Set to zero what top-k, top-p and min-p exclude; the result is not normalised."""
    if sampling.top_k:
        kth = probabilities.topk(min(sampling.top_k, probabilities.shape[-1])).values[:, -1:]
        probabilities = probabilities.where(probabilities >= kth, 0.0)
    if sampling.top_p < 1:
        ordered, index = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        outside = before >= sampling.top_p * ordered.sum(-1, keepdim=True)
        probabilities = probabilities.masked_fill(torch.zeros_like(outside).scatter(-1, index, outside), 0.0)
    if sampling.min_p:
        floor = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.where(probabilities >= floor, 0.0)
    return probabilities
