"""Interface of a vLLM instance, in this process or behind a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from mm_cpgd.rollout.vllm.weights import AdapterFiles

MISSING = (
    "rollout.engine=vllm needs vLLM: pip install 'mm-cpgd[vllm]' (Linux with a GPU), or set "
    "rollout.engine=local"
)


@dataclass(frozen=True)
class VllmCompletion:
    """One completion as vLLM returns it.

    Attributes:
        prompt_ids: the prompt as vLLM tokenized it, image tokens included.
        token_ids: tokens of the completion, the end token included.
        logprobs: log-probabilities of these tokens in the distribution that they were drawn from: after
            biases, temperature, top-k, top-p and min-p (vLLM's ``processed_logprobs``).
    """

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    logprobs: Sequence[float | None]


@dataclass(frozen=True)
class VideoRequest:
    """A prompt with videos, whose frames are chosen and scaled already.

    Attributes:
        text: as the chat template writes it, with one placeholder for each video.
        videos: of each video its frames (n, height, width, 3) uint8, and the metadata of transformers'
            ``VideoMetadata`` by name.
        options: arguments of the model's processor.
    """

    text: str
    videos: tuple[tuple[NDArray[np.uint8], dict[str, Any]], ...]
    options: dict[str, Any]

    def prompt(self) -> dict[str, Any]:
        """Return the prompt of ``vllm.LLM.generate``."""
        return {
            "prompt": self.text,
            "multi_modal_data": {"video": list(self.videos)},
            "mm_processor_kwargs": self.options,
        }


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt as the policy has encoded it, not to be encoded again: it may end with sampled tokens.

    Attributes:
        token_ids: the tokens, of each image one alone: vLLM puts as many in its place as the image has.
        images: the images in order.
    """

    token_ids: list[int]
    images: tuple[Image.Image, ...] = ()

    def prompt(self) -> dict[str, Any]:
        """Return the prompt of ``vllm.LLM.generate``."""
        found: dict[str, Any] = {"prompt_token_ids": self.token_ids}
        if self.images:
            found["multi_modal_data"] = {"image": list(self.images)}
        return found


Request = list[dict[str, Any]] | VideoRequest | TokenPrompt
"""A conversation as messages, or in another form where the backend takes it."""


class RequestStream(Protocol):
    """Requests of one call, which may be added at any time."""

    def submit(self, number: int, request: TokenPrompt | VideoRequest, seed: int) -> None:
        """Add a request; no other one without an answer may have its number."""
        ...

    def advance(self) -> list[tuple[int, VllmCompletion]]:
        """Go on, and return the answers that have come since, by their numbers."""
        ...


class VllmBackend(Protocol):
    """A vLLM instance, in this process or behind a server."""

    def image_content(self, image: Image.Image) -> dict[str, Any]:
        """Return the content item of a message for an image."""
        ...

    def chat(
        self, conversations: Sequence[Request], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[VllmCompletion]:
        """Sample one completion per conversation, each with its own seed, with vLLM's sampling options.

        All conversations of one call are messages, or all are tokens, on all processes that share a vLLM; a
        backend whose ``takes_videos`` is True takes ``VideoRequest`` among messages.
        """
        ...

    def stream(self, options: Mapping[str, Any]) -> AbstractContextManager[RequestStream] | None:
        """Return what takes requests with these sampling options one by one; None if it cannot."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the weights and clear everything that was computed with the old ones.

        Args:
            weights: as ``named_weights`` yields them; to be gone through to the end.
        """
        ...

    def close(self) -> None:
        """End what was started; nothing can be sampled afterwards."""
        ...


class AdapterBackend(VllmBackend, Protocol):
    """A vLLM instance that holds the base weights and takes adapters on them."""

    def load_adapter(self, files: AdapterFiles) -> None:
        """Replace the adapters and clear everything that was computed with the old ones."""
        ...
