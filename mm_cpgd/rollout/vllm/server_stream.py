"""Requests to vLLM servers that are added while they answer others."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.backend import TokenPrompt, VideoRequest, VllmCompletion
from mm_cpgd.rollout.vllm.client import TokenRequest
from mm_cpgd.rollout.vllm.dispatch import Dispatch
from mm_cpgd.rollout.vllm.pool import ServerPool


class ServerStream:
    """A ``RequestStream`` to servers.

    A conversation stays at the server that has sampled its earlier turns and holds their keys and values, as
    long as that server has room.

    Args:
        pool: the servers.
        options: vLLM's sampling options.
    """

    def __init__(self, pool: ServerPool, options: Mapping[str, Any]) -> None:
        self.dispatch = Dispatch(pool, [], [], options, at_once=True)
        servers = len(pool.servers)
        most = pool.limits.requests * servers + servers
        self.threads = ThreadPoolExecutor(most, thread_name_prefix="vllm")
        self.numbers: dict[int, int] = {}  # of completions that are being sampled
        self.homes: dict[int, str] = {}
        self._encoded: dict[int, tuple[TokenPrompt, TokenRequest]] = {}

    def submit(self, number: int, request: TokenPrompt | VideoRequest, seed: int) -> None:
        """See ``RequestStream``.

        Raises:
            UserError: the request has videos.
        """
        if isinstance(request, VideoRequest):
            raise UserError("vLLM's servers get no videos; set rollout.vllm.mode=colocated for such rows")
        # The first turns of a prompt's conversations are one object. Kept with its key: ids are used again.
        if id(request) not in self._encoded:
            self._encoded[id(request)] = (request, encoded(request))
        _, prompt = self._encoded[id(request)]
        place = self.dispatch.add(prompt, seed, self.homes.get(number, ""))
        self.numbers[place] = number

    def advance(self) -> list[tuple[int, VllmCompletion]]:
        """See ``RequestStream``; errors as ``Dispatch.run``."""
        if self.numbers:
            self.dispatch.go_on(self.threads)
        found = []
        for job in self.dispatch.verified:
            number = self.numbers.pop(job.place)
            answer = self.dispatch.answers[job.place]
            assert answer is not None
            self.homes[number] = job.home
            found.append((number, answer))
        self.dispatch.verified = []
        return found

    def close(self) -> None:
        """Break off what has not been answered."""
        if self.numbers:
            self.dispatch.pool.close()
        self.threads.shutdown(wait=True, cancel_futures=True)


def encoded(prompt: TokenPrompt) -> TokenRequest:
    """Return a prompt as it is sent."""
    return TokenRequest(prompt.token_ids, tuple(data_url(image) for image in prompt.images))


def data_url(image: Image.Image) -> str:
    """Return an image as PNG, which is lossless, in a URL."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
