"""Rollout engine on vLLM: it gets the same conversations, and the policy's weights after every update.

The backend determines whether vLLM runs in this process (``colocated``) or as a server (``server``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from data import ImageRef
from mm_cpgd.errors import DataError, UserError
from mm_cpgd.policy.batch import Conversation, EncodedPrompt
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.visual.videos import metadata
from mm_cpgd.rollout.engine import Completion, Group
from mm_cpgd.rollout.vllm.backend import (
    AdapterBackend,
    Request,
    TokenPrompt,
    VideoRequest,
    VllmBackend,
    VllmCompletion,
)
from mm_cpgd.rollout.vllm.session import VllmSession, open_session
from mm_cpgd.rollout.vllm.weights import adapter_files, named_weights

# The strongest logit bias that vLLM accepts: it multiplies the odds of a token by e⁻¹⁰⁰.
_FORBIDDEN_BIAS = -100.0


class VllmEngine:
    """A ``RolloutEngine`` on vLLM.

    Every completion is a separate request with its own seed; vLLM's prefix cache lets the requests of a group
    share the computation of their prompt. The same seed gives the same text as far as vLLM's kernels do not
    depend on the rest of the batch.

    Args:
        policy: provides end tokens, forbidden tokens and the tokenizer.
        backend: does the sampling.
        adapters: the backend once more, if it is to get the policy's adapters and not all weights.

    Attributes:
        extras: further sampling options of vLLM, such as ``repetition_penalty`` and ``stop``. The trainer's
            log-probabilities know nothing of them.
    """

    def __init__(self, policy: Policy, backend: VllmBackend, adapters: AdapterBackend | None = None) -> None:
        self.policy = policy
        self.backend = backend
        self.adapters = adapters
        self.extras: Mapping[str, Any] = {}

    @property
    def dtype(self) -> torch.dtype | None:
        """Number format in which vLLM computes; None where it does not say, as of a server."""
        return getattr(self.backend, "dtype", None)

    def load_weights(self, policy: Policy) -> None:
        """Send the policy's weights to vLLM, or its adapters alone; called on all processes."""
        self.policy = policy
        if self.adapters:
            self.adapters.load_adapter(adapter_files(policy))
        else:
            self.backend.load(named_weights(policy))

    def release(self) -> None:
        """Nothing to free: vLLM has weights of its own."""

    def close(self) -> None:
        """End vLLM if it runs in this process."""
        self.backend.close()

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``; a prompt gets no completions if its image has vanished.

        Raises:
            UserError: vLLM tokenizes a prompt differently from the policy, or a prompt has a video.
        """
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts, but seeds for {len(seeds)}")
        conversations = [self._conversation(prompt) for prompt in prompts]
        requests = [
            (owner, conversation, seed)
            for owner, (conversation, group) in enumerate(zip(conversations, seeds, strict=True))
            for seed in group
            if conversation is not None
        ]
        owners = [owner for owner, _, _ in requests]
        sampled = self.backend.chat(
            [conversation for _, conversation, _ in requests],
            [seed for _, _, seed in requests],
            self._options(sampling),
        )
        groups: list[Group] = [[] for _ in prompts]
        for owner, completion in zip(owners, sampled, strict=True):
            groups[owner].append(self.completion_of(prompts[owner], completion))
        return groups

    def session(
        self, prompts: Sequence[EncodedPrompt], copies: int, sampling: Sampling, longest: int
    ) -> AbstractContextManager[VllmSession] | None:
        """See ``SessionEngine``; None where the processes that share a vLLM submit equal requests."""
        stream = self.backend.stream(self._options(sampling))
        return None if stream is None else open_session(self, stream)

    def token_request(self, prompt: EncodedPrompt) -> TokenPrompt | VideoRequest | None:
        """Return a prompt as tokens with its images; None if one cannot be opened any more.

        A prompt with videos is text, with their frames.

        Raises:
            UserError: it has videos and observations, or the backend takes no videos.
        """
        begun = prompt.conversation
        if isinstance(prompt, ContinuedPrompt) or begun is None or not begun.videos:
            return _as_tokens(prompt)
        try:
            return self._video_request(begun)
        except DataError:
            return None

    def _conversation(self, prompt: EncodedPrompt) -> Request | None:
        """Return the prompt's messages with the images inserted; None if one cannot be opened any more.

        A prompt that ends with tokens that were sampled is returned as tokens.

        Raises:
            UserError: the backend takes no videos, or none beside images or observations.
        """
        if isinstance(prompt, ContinuedPrompt):
            return self.token_request(prompt)
        if prompt.conversation is None:
            raise ValueError(
                "a prompt without its conversation cannot be sent to vLLM; encode it with PromptEncoder"
            )
        if prompt.conversation.tools:
            raise UserError(
                "rollout.environment has the chat template describe its tools, which vLLM's messages cannot; "
                "let the environment describe them in its system message (options: {describe: system})"
            )
        try:
            if prompt.conversation.videos:
                return self._video_request(prompt.conversation)
            images = iter([reference.open() for reference in prompt.conversation.images])
        except DataError:
            return None

        def with_image(item: dict[str, Any]) -> dict[str, Any]:
            return self.backend.image_content(next(images)) if item["type"] == "image" else item

        return [
            {**message, "content": [with_image(item) for item in message["content"]]}
            for message in prompt.conversation.messages
        ]

    def _video_request(self, conversation: Conversation) -> VideoRequest:
        if not getattr(self.backend, "takes_videos", False):
            raise UserError(
                "vLLM's servers get no videos; set rollout.vllm.mode=colocated or rollout.engine=local for "
                "rows with videos"
            )
        if conversation.images:
            raise UserError(
                "vLLM gets no prompts with images beside videos; set rollout.engine=local for such rows"
            )
        return video_request(self.policy.processor, conversation)

    def _options(self, sampling: Sampling) -> dict[str, Any]:
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "max_tokens": sampling.max_new_tokens,
            "stop_token_ids": self.policy.end_ids,
            "logit_bias": dict.fromkeys(self.policy.forbidden_ids, _FORBIDDEN_BIAS),
            **self.extras,
        }

    def completion_of(self, prompt: EncodedPrompt, sampled: VllmCompletion) -> Completion:
        """Return what vLLM has sampled for this prompt as a completion.

        Raises:
            UserError: vLLM has read another prompt.
        """
        _check_prompt(prompt, sampled)
        tokens = torch.tensor(sampled.token_ids, dtype=torch.long)
        # None stands for NaN, which JSON cannot represent.
        values = [float("nan") if value is None else value for value in sampled.logprobs]
        if len(values) != len(tokens):
            raise ValueError(f"vLLM returned {len(tokens)} tokens with {len(values)} log-probabilities")
        finished = bool(len(tokens)) and int(tokens[-1]) in self.policy.end_ids
        text = self.policy.tokenizer.decode(sampled.token_ids, skip_special_tokens=True)
        return Completion(tokens, torch.tensor(values, dtype=torch.float32), text, finished)


def video_request(processor: Any, conversation: Conversation) -> VideoRequest:
    """Return a prompt with videos as vLLM takes it, with the frames that the policy sees.

    Raises:
        DataError: a video cannot be read any more.
    """
    found = [video.frames() for video in conversation.videos]
    begun = conversation.messages[-1]["role"] == "assistant"
    text = processor.apply_chat_template(
        conversation.messages,
        add_generation_prompt=not begun,
        continue_final_message=begun,
        tokenize=False,
    )
    videos = tuple(
        (
            np.stack([np.asarray(image) for image in video.images]),
            {**metadata(video.choice), "video_backend": "pyav", "do_sample_frames": False},
        )
        for video in found
    )
    return VideoRequest(text, videos, {"do_sample_frames": False, "do_resize": False})


def _as_tokens(prompt: EncodedPrompt) -> TokenPrompt | None:
    """Return a prompt as tokens, one for each image; None if an image cannot be opened any more.

    Raises:
        UserError: it has videos and observations.
    """
    begun, observed = prompt.conversation, tuple[ImageRef, ...]()
    if isinstance(prompt, ContinuedPrompt):
        begun, observed = prompt.prompt.conversation, prompt.images
    if begun is not None and begun.videos:
        raise UserError(
            "vLLM does not continue conversations about a video; set rollout.engine=local for such rows"
        )
    references = (*(begun.images if begun else ()), *observed)
    try:
        images = tuple(reference.open() for reference in references)
    except DataError:
        return None
    kept = torch.ones(len(prompt), dtype=torch.bool)
    if prompt.token_types is not None:
        inside = prompt.token_types == 1
        kept[1:] = ~(inside[1:] & inside[:-1])  # images never touch
    return TokenPrompt(prompt.input_ids[kept].tolist(), images)


def _check_prompt(prompt: EncodedPrompt, sampled: VllmCompletion) -> None:
    """Raise unless vLLM tokenized the prompt as the policy does, which trains on the policy's tokens."""
    own, other = prompt.input_ids.tolist(), list(sampled.prompt_ids)
    if own == other:
        return
    pairs = zip(own, other, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(own), len(other)))
    raise UserError(
        f"vLLM tokenizes a prompt differently from the policy: {len(other):,} tokens instead of "
        f"{len(own):,}, first difference at token {first:,}; give it the same chat template and image limits "
        "(policy.min_pixels and max_pixels; for a server --mm-processor-kwargs)"
    )
