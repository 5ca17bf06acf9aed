"""An engine with its own copy of the weights, as vLLM has, that takes the place of vLLM in whole runs."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Group, LocalEngine, Sampling
from mm_cpgd.rollout.conversations.local_session import LocalSession

AS_VLLM = ("rollout.engine=vllm",)


class CopyEngine:
    """Samples by the local engine from a copy of the policy.

    Attributes:
        live: the policy that learns.
        calls: thread of each call of ``generate``, and whether its weights were those of the live policy.
        loads: number of times that weights were sent.
        deaf_after: number of these after which they have no effect.
        before: called before each ``generate`` with the number of earlier ones.
        seconds: additional duration of each ``generate``.
    """

    before: Callable[[int], None] = staticmethod(lambda _: None)
    seconds = 0.0
    deaf_after = 1_000
    newest: CopyEngine

    def __init__(self, policy: Policy) -> None:
        self.live = policy
        self.engine = LocalEngine(copy.deepcopy(policy), report_kept=False)
        self.calls: list[tuple[str, bool]] = []
        self.loads = 0
        self._busy = threading.Lock()
        CopyEngine.newest = self

    def load_weights(self, policy: Policy) -> None:
        """Copy the weights; nothing may be sampled meanwhile."""
        assert not self._busy.locked(), "weights arrive while completions are sampled"
        self.loads += 1
        if self.loads <= self.deaf_after:
            self.engine.policy.load_state_dict(policy.state_dict())

    def release(self) -> None:
        """Keep the weights."""

    def close(self) -> None:
        """Nothing to end."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """Sample; two threads at a time are an error."""
        with self._sampling():
            return self.engine.generate(prompts, sampling, seeds)

    @contextmanager
    def session(
        self, prompts: Sequence[EncodedPrompt], copies: int, sampling: Sampling, longest: int
    ) -> Iterator[LocalSession]:
        """Sample turns of conversations; counts as a call, as ``generate`` does."""
        with self._sampling(), self.engine.session(prompts, copies, sampling, longest) as session:  # type: ignore[union-attr]
            yield session

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        assert self._busy.acquire(blocking=False), "two batches are sampled at a time"
        try:
            thread = threading.current_thread().name.rsplit("_", 1)[0]
            self.calls.append((thread, self._is_current()))
            self.before(len(self.calls) - 1)
            time.sleep(self.seconds)
            yield
        finally:
            self._busy.release()

    def _is_current(self) -> bool:
        pairs = zip(self.engine.policy.parameters(), self.live.parameters(), strict=True)
        return all(torch.equal(own, live) for own, live in pairs)


def use_copy_engine() -> None:
    """Let runs with ``AS_VLLM`` use a ``CopyEngine``."""
    from mm_cpgd.training import run

    def build(config: Any, accelerator: Any, placed: Any, *_: Any) -> CopyEngine:
        return CopyEngine(placed.policy)

    run.build_engine = build


def use_engine_that_fails_on_the_second_process() -> None:
    """Let the engine of the second process fail in the background; sampling on the first one takes long."""
    import os

    from mm_cpgd.errors import RunEnded

    use_copy_engine()

    def before(number: int) -> None:
        if number == 2 and os.environ["RANK"] == "1":
            raise RunEnded("the engine is gone")
        time.sleep(number)

    CopyEngine.before = staticmethod(before)
