"""Local rollout engine: sampling by the policy itself, each prompt computed once for all its completions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.computed_weights import cast_weights
from mm_cpgd.rollout.conversations.local_session import LocalSession
from mm_cpgd.rollout.engine import Completion, Group
from mm_cpgd.rollout.sampler import Sampler, can_be_graph


class LocalEngine:
    """Samples with the policy's own weights.

    Args:
        policy: the live policy; updates take effect immediately.
        batch_prompts: prompts of which all completions are decoded together; with a graph, those of further
            prompts begin as they end.
        report_kept: whether completions say which tokens the cuts left; not needed if none are trained on.
        graph: whether the kernels of a step are recorded as a CUDA graph; None: where that is possible.
        held_bytes: most bytes of keys and values that are kept of conversations whose tools work while others
            have their places; None: half of what is free on a GPU, no limit elsewhere.
    """

    def __init__(
        self,
        policy: Policy,
        batch_prompts: int = 32,
        *,
        report_kept: bool = True,
        graph: bool | None = None,
        held_bytes: int | None = None,
    ) -> None:
        self.policy = policy
        self.batch_prompts = batch_prompts
        self.report_kept = report_kept
        self.graph = graph
        self.held_bytes = held_bytes

    def load_weights(self, policy: Policy) -> None:
        """Sample from this policy; nothing is copied."""
        self.policy = policy

    def release(self) -> None:
        """Nothing to free: the weights are the policy's."""

    def close(self) -> None:
        """Nothing to end."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``; all prompts of a call must have the same number of seeds."""
        return list(self.stream(prompts, sampling, seeds))

    @torch.no_grad()
    def stream(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> Iterator[Group]:
        """Yield what ``generate`` returns, each group as soon as it and those before it are complete.

        Until the iterator ends or is closed the policy is in evaluation mode, and may not be trained.
        """
        counts = [len(group) for group in seeds]
        if len(counts) != len(prompts) or len(set(counts)) > 1:
            raise ValueError(
                f"{len(prompts)} prompts with {counts} seeds; every prompt needs the same number of seeds"
            )
        graph = self._records()
        # Elsewhere a step takes longer the more completions run: to let the last ones of a batch run alone
        # costs less than gathering places that are filled again.
        size = max(1, len(prompts) if graph else self.batch_prompts)
        with _evaluation_mode(self.policy), cast_weights(self.policy.model):
            for batch in _batches(prompts, size):
                yield from self._decode(prompts[batch], sampling, seeds[batch], graph=graph)

    def session(
        self, prompts: Sequence[EncodedPrompt], copies: int, sampling: Sampling, longest: int
    ) -> AbstractContextManager[LocalSession] | None:
        """See ``SessionEngine``; None without shared prefixes."""
        return self._session(prompts, copies, sampling, longest) if self.policy.shared_prefix else None

    @contextlib.contextmanager
    def _session(
        self, prompts: Sequence[EncodedPrompt], copies: int, sampling: Sampling, longest: int
    ) -> Iterator[LocalSession]:
        """Yield a session; until it is left the policy is in evaluation mode, and may not be trained."""
        with _evaluation_mode(self.policy), cast_weights(self.policy.model):
            yield LocalSession(
                self.policy,
                prompts,
                copies,
                sampling,
                longest,
                batch_prompts=self.batch_prompts,
                report_kept=self.report_kept,
                graph=self._records(),
                room=_free_bytes(self.policy.device) if self.held_bytes is None else self.held_bytes,
            )

    def _records(self) -> bool:
        """Return whether the kernels of a step are recorded as a CUDA graph."""
        return can_be_graph(self.policy) if self.graph is None else self.graph and self.policy.shared_prefix

    def _decode(
        self,
        prompts: Sequence[EncodedPrompt],
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        *,
        graph: bool,
    ) -> Iterator[Group]:
        sampler = Sampler(
            self.policy,
            prompts,
            sampling,
            seeds,
            batch_prompts=_together(prompts, self.batch_prompts),
            report_kept=self.report_kept,
            graph=graph,
        )
        copies = len(seeds[0])
        for found in sampler.run():
            # As lists: for a tiny model, decoding tensors to text takes longer than sampling.
            tokens = [drawn.tokens.tolist() for drawn, _ in found]
            texts = self.policy.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            completions = [
                Completion(drawn.tokens, drawn.logprobs, text, drawn.ended, kept)
                for (drawn, kept), text in zip(found, texts, strict=True)
            ]
            yield from (completions[i : i + copies] for i in range(0, len(completions), copies))


def _free_bytes(device: torch.device) -> int | None:
    """Return half of the bytes that are free on a GPU; None elsewhere."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) // 2


def _batches(prompts: Sequence[EncodedPrompt], size: int) -> Iterator[slice]:
    """Split prompts into batches of ``size``, of which those that continue one prompt count as one."""
    first, seen = 0, set[int]()
    for place, own in enumerate(_begun(prompts)):
        if len(seen) == size and own not in seen:
            yield slice(first, place)
            first, seen = place, set()
        seen.add(own)
    if first < len(prompts):
        yield slice(first, len(prompts))


def _together(prompts: Sequence[EncodedPrompt], size: int) -> int:
    """Return how many of these prompts are decoded together, where ``size`` different ones may be."""
    return size * -(-len(prompts) // len(set(_begun(prompts))))


def _begun(prompts: Sequence[EncodedPrompt]) -> list[int]:
    """Return of each prompt a number that it shares with those that continue the same prompt."""
    return [
        id(one.prompt) if isinstance(one, ContinuedPrompt) else -1 - place
        for place, one in enumerate(prompts)
    ]


@contextlib.contextmanager
def _evaluation_mode(policy: Policy) -> Iterator[None]:
    """Put the policy in evaluation mode: in training mode gradient checkpointing disables the cache."""
    training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(training)
