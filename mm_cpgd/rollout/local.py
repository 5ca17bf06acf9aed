"""Local rollout engine: sampling by the policy itself, each prompt computed once for all its completions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.distribution import KeptTokens, Sampling, kept_of, sampling_logits
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.decoding import prefill
from mm_cpgd.rollout.engine import Completion, Group

# Largest share of finished completions in the decoded batch; above it they are removed.
MAX_FINISHED_SHARE = 1 / 8


class LocalEngine:
    """Samples with the policy's own weights.

    Args:
        policy: the live policy; updates take effect immediately.
        batch_prompts: prompts decoded in one batch.
        report_kept: whether completions say which tokens the cuts left; not needed if none are trained on.
    """

    def __init__(self, policy: Policy, batch_prompts: int = 32, *, report_kept: bool = True) -> None:
        self.policy = policy
        self.batch_prompts = batch_prompts
        self.report_kept = report_kept

    def load_weights(self, policy: Policy) -> None:
        """Sample from this policy; nothing is copied."""
        self.policy = policy

    def release(self) -> None:
        """Nothing to free: the weights are the policy's."""

    def close(self) -> None:
        """Nothing to end."""

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``; all prompts of a call must have the same number of seeds."""
        counts = [len(group) for group in seeds]
        if len(counts) != len(prompts) or len(set(counts)) > 1:
            raise ValueError(
                f"{len(prompts)} prompts with {counts} seeds; every prompt needs the same number of seeds"
            )
        groups: list[Group] = []
        with _evaluation_mode(self.policy):
            for first in range(0, len(prompts), self.batch_prompts):
                batch = slice(first, first + self.batch_prompts)
                groups += self._decode(prompts[batch], sampling, seeds[batch])
        return groups

    def _decode(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        policy, copies = self.policy, len(seeds[0])
        count, device = len(prompts) * copies, policy.device
        uniforms = _uniforms(seeds, sampling.max_new_tokens).to(device)
        forbidden = policy.forbidden
        ends = torch.tensor(policy.end_ids, device=device)
        tokens = torch.full((count, sampling.max_new_tokens), policy.pad_id, device=device)
        logprobs = torch.zeros(count, sampling.max_new_tokens, device=device)
        lengths = torch.zeros(count, dtype=torch.long, device=device)
        finished = torch.zeros(count, dtype=torch.bool, device=device)
        kept = _KeptRecorder() if sampling.has_cuts and self.report_kept else None
        decoder = prefill(policy, prompts, copies, sampling.max_new_tokens)
        rows = torch.arange(count, device=device)  # rows in the decoded batch
        for step in range(sampling.max_new_tokens):
            logits = decoder.logits.float().index_fill(-1, forbidden, -torch.inf)
            logits = sampling_logits(logits, sampling)
            token = draw(logits, uniforms[rows, step], greedy=sampling.temperature == 0)
            tokens[rows, step] = token
            logprobs[rows, step] = logits.log_softmax(-1).gather(-1, token.unsqueeze(-1)).squeeze(-1)
            if kept:
                kept.add(rows, logits)
            lengths[rows] += ~finished[rows]
            finished[rows] |= torch.isin(token, ends)
            running = (~finished[rows]).nonzero().squeeze(1)
            if not len(running) or step + 1 == sampling.max_new_tokens:
                break
            if len(running) <= len(rows) * (1 - MAX_FINISHED_SHARE):
                decoder.keep(running)
                rows, token = rows[running], token[running]
            decoder.advance(token)
        return self._groups(
            tokens, logprobs, lengths, finished, copies, kept.rows(lengths.tolist()) if kept else None
        )

    def _groups(
        self,
        tokens: Tensor,
        logprobs: Tensor,
        lengths: Tensor,
        finished: Tensor,
        copies: int,
        kept: list[KeptTokens] | None,
    ) -> list[Group]:
        sizes = lengths.tolist()
        kept_of_rows: Sequence[KeptTokens | None] = kept or [None] * len(sizes)
        # As lists: for a tiny model, decoding tensors to text takes longer than sampling.
        own = [row[:length] for row, length in zip(tokens.tolist(), sizes, strict=True)]
        texts = self.policy.tokenizer.batch_decode(own, skip_special_tokens=True)
        rows = zip(
            tokens.cpu(),
            logprobs.cpu(),
            sizes,
            texts,
            finished.tolist(),
            kept_of_rows,
            strict=True,
        )
        completions = [
            Completion(row[:length], values[:length], text, done, own)
            for row, values, length, text, done, own in rows
        ]
        return [completions[i : i + copies] for i in range(0, len(completions), copies)]


@contextlib.contextmanager
def _evaluation_mode(policy: Policy) -> Iterator[None]:
    """Put the policy in evaluation mode: in training mode gradient checkpointing disables the cache."""
    training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(training)


def _uniforms(seeds: Sequence[Sequence[int]], count: int) -> Tensor:
    """Return (N, count) uniform numbers in [0, 1), each row drawn from its own seed."""
    rows = [
        torch.rand(count, generator=torch.Generator().manual_seed(seed)) for group in seeds for seed in group
    ]
    return torch.stack(rows)


def draw(logits: Tensor, uniforms: Tensor, *, greedy: bool = False) -> Tensor:
    """Sample by inverting the cumulative distribution, so that a row's uniform number determines its token.

    Args:
        logits: (N, V) float32, as returned by ``sampling_logits``.
        uniforms: (N,) in [0, 1).
        greedy: take the most probable token instead.

    Returns:
        (N,) token ids.
    """
    if greedy:
        return logits.argmax(-1)
    # In float64: over 150,000 tokens a float32 sum is inaccurate, and u · total could round up to total.
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    targets = uniforms.unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, targets, right=True).squeeze(-1)
    # Only non-finite logits lead past the end; the caller finds them in the log-probabilities.
    return tokens.clamp(max=logits.shape[-1] - 1)


class _KeptRecorder:
    """Tokens that the cuts leave at each step of decoding."""

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, rows: Tensor, logits: Tensor) -> None:
        """Record a step of these rows (n,) with their ``sampling_logits`` (n, V)."""
        self._steps.append((rows, *kept_of(logits)))

    def rows(self, lengths: Sequence[int]) -> list[KeptTokens]:
        """Return the kept tokens of each row, without the steps after its end."""
        columns = [torch.full_like(rows, step) for step, (rows, _, _) in enumerate(self._steps)]
        rows, counts, ids = (torch.cat(values).cpu() for values in zip(*self._steps, strict=True))
        everything = KeptTokens.at_positions(
            (len(lengths), len(self._steps)), rows, torch.cat(columns).cpu(), counts, ids
        )
        return [everything.select(torch.tensor([row]), length) for row, length in enumerate(lengths)]
