"""Turns of conversations sampled by vLLM: each is a request, added while others are being answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.rollout.conversations.sessions import TurnRequest
from mm_cpgd.rollout.engine import Completion
from mm_cpgd.rollout.vllm.backend import RequestStream, TokenPrompt, VideoRequest

if TYPE_CHECKING:
    from mm_cpgd.rollout.vllm.engine import VllmEngine


class VllmSession:
    """A ``TurnSession`` of vLLM, whose prefix cache holds what conversations have in common.

    Args:
        engine: the engine.
        stream: takes its requests.
    """

    def __init__(self, engine: VllmEngine, stream: RequestStream) -> None:
        self.engine = engine
        self.stream = stream
        self.prompts: dict[int, EncodedPrompt] = {}  # of the turns that are being sampled, by conversation
        self.lost: list[int] = []
        self._first: dict[int, TokenPrompt | VideoRequest | None] = {}

    @property
    def busy(self) -> bool:
        """See ``TurnSession``."""
        return bool(self.prompts or self.lost)

    def submit(self, request: TurnRequest) -> None:
        """See ``TurnSession``.

        Raises:
            UserError: vLLM takes no such prompt.
        """
        found = self._request(request)
        if found is None:
            self.lost.append(request.row)
        else:
            self.prompts[request.row] = request.prompt
            self.stream.submit(request.row, found, request.seed)

    def _request(self, request: TurnRequest) -> TokenPrompt | VideoRequest | None:
        if request.observations:
            return self.engine.token_request(request.prompt)
        # One for all conversations of the prompt, whose image is there for all of them or for none.
        key = id(request.prompt)
        if key not in self._first:
            self._first[key] = self.engine.token_request(request.prompt)
        return self._first[key]

    def advance(self) -> list[tuple[int, Completion | None]]:
        """See ``TurnSession``.

        Raises:
            UserError: vLLM expands a prompt's images to other tokens than the policy.
            EngineFailed: no server answers.
        """
        found: list[tuple[int, Completion | None]] = [(row, None) for row in self.lost]
        self.lost = []
        for row, sampled in self.stream.advance():
            found.append((row, self.engine.completion_of(self.prompts.pop(row), sampled)))
        return found

    def forget(self, row: int) -> None:
        """Nothing to free: vLLM drops what has not been used for long."""


@contextmanager
def open_session(engine: VllmEngine, stream: AbstractContextManager[RequestStream]) -> Iterator[VllmSession]:
    """Yield a session that ends with its stream."""
    with stream as opened:
        yield VllmSession(engine, opened)
