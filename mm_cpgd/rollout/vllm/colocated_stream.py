"""Requests to vLLM in the training process that are added while it answers others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mm_cpgd.rollout.vllm.backend import TokenPrompt, VideoRequest, VllmCompletion


class ColocatedStream:
    """A ``RequestStream`` of vLLM in this process: its engine does one step at a time.

    Args:
        llm: a ``vllm.LLM``.
        make_params: returns the ``vllm.SamplingParams`` of a seed.
        adapter: the adapter that is applied; None: none.
    """

    def __init__(self, llm: Any, make_params: Callable[[int], Any], adapter: Any) -> None:
        self.llm = llm
        self.make_params = make_params
        self.adapter = adapter
        self._numbers: dict[str, int] = {}
        self._running: dict[int, str] = {}
        self._waiting: list[tuple[int, TokenPrompt | VideoRequest, int]] = []

    def submit(self, number: int, request: TokenPrompt | VideoRequest, seed: int) -> None:
        """See ``RequestStream``."""
        self._waiting.append((number, request, seed))

    def advance(self) -> list[tuple[int, VllmCompletion]]:
        """See ``RequestStream``."""
        # The trainer's autocast must not apply to vLLM.
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            self._add()
            results = self.llm.llm_engine.step() if self._running else []
        found = []
        for result in results:
            if result.finished:
                number = self._numbers.pop(result.request_id)
                del self._running[number]
                found.append((number, completion_of(result)))
        return found

    def _add(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        names = self.llm.enqueue(
            [request.prompt() for _, request, _ in waiting],
            [self.make_params(seed) for _, _, seed in waiting],
            lora_request=self.adapter,
            use_tqdm=False,
        )
        for (number, _, _), name in zip(waiting, names, strict=True):
            # vLLM adds a random part to the name for itself, and returns results under the name without it.
            self._numbers[name.partition("-")[0]] = number
            self._running[number] = name

    def close(self) -> None:
        """Break off what has not been answered."""
        if self._running:
            self.llm.llm_engine.abort_request(list(self._running.values()), internal=True)
        self._running, self._numbers = {}, {}


def completion_of(result: Any) -> VllmCompletion:
    """Convert a ``vllm.RequestOutput`` with one completion."""
    output = result.outputs[0]
    pairs = zip(output.token_ids, output.logprobs, strict=True)
    logprobs = [by_token[token].logprob for token, by_token in pairs]
    return VllmCompletion(result.prompt_token_ids, list(output.token_ids), logprobs)
