"""Encoding of prompts, also in the background, and the thread that scores while sampling continues."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from accelerate import Accelerator

from data import DataError, Example
from mm_cpgd.policy import EncodedPrompt, PromptEncoder
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.rollout import Group
from rewards.workers.pool import usable_cores

Encode = Callable[[int], EncodedPrompt | None]
Pending = Future[EncodedPrompt | None]
"""A prompt that is being encoded; None or an error if that fails."""
# Of a process of the run, unless its config says how many; more have not been needed to keep up.
MOST_WORKERS = 4


def encode_rows(
    encoder: PromptEncoder, examples: Sequence[Example], pending: Sequence[Pending] | None = None
) -> tuple[list[EncodedPrompt | None], list[str]]:
    """Encode prompts; a row whose image has vanished since the start becomes None.

    Args:
        encoder: encodes in this thread.
        examples: the rows.
        pending: their prompts, if they are being encoded already; what fails is encoded here again.

    Returns:
        The prompts in order, and one line for each row that is lost.
    """
    prompts: list[EncodedPrompt | None] = []
    lost = []
    for place, example in enumerate(examples):
        prompt = _result(pending[place]) if pending else None
        try:
            prompts.append(prompt or encoder.encode(example))
        except (
            DataError,
            ValueError,
        ) as error:  # gone or damaged, or another image that the processor refuses
            prompts.append(None)
            lost.append(lost_line(example, error))
    return prompts, lost


def _result(pending: Pending) -> EncodedPrompt | None:
    try:
        return pending.result()
    except Exception:
        return None


def lost_line(example: Example, reason: object) -> str:
    """Return the line about a row that is left out."""
    return f"row {example.id!r} ({example.source}) is left out: {reason}"


def without_lost(
    examples: Sequence[Example], prompts: Sequence[EncodedPrompt | None], groups: Sequence[Group]
) -> tuple[list[EncodedPrompt | None], list[str]]:
    """Return the prompts without those whose image the engine could not open, and lines about these."""
    lost = [
        lost_line(example, "its image cannot be opened any more")
        for example, prompt, group in zip(examples, prompts, groups, strict=True)
        if prompt is not None and not group
    ]
    return [prompt if group else None for prompt, group in zip(prompts, groups, strict=True)], lost


@contextmanager
def background_thread(name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread that runs what is submitted, in order.

    The thread ends with the block; tasks that have not started by then are dropped.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class PromptPrefetcher:
    """Encodes the prompts of the next iteration in the background; holds those of one ``begin`` at most.

    A cache only: prompts that were not prefetched, or failed, are encoded by the caller that needs them.

    Args:
        encode: encodes the prompt of one dataset row in a thread of this process.
        examples: the rows; needed with ``workers``.
        workers: encode in their place as soon as they are ready.
    """

    def __init__(
        self, encode: Encode, examples: Sequence[Example] = (), workers: PromptWorkers | None = None
    ) -> None:
        self._encode = encode
        self._examples = examples
        self._workers = workers
        self._indices: list[int] = []
        self._prompts: list[Pending] = []
        self._executor: ThreadPoolExecutor | None = None

    @property
    def in_processes(self) -> bool:
        """Whether prompts are encoded by other processes, of which this one notices nothing."""
        return self._workers is not None and self._workers.ready

    def begin(self, indices: Sequence[int]) -> None:
        """Start to encode these rows' prompts; those of an earlier ``begin`` with others are dropped."""
        if self._indices == list(indices):
            return
        self.drop()
        self._indices = list(indices)
        if self._workers is not None and self.in_processes:
            self._prompts = [self._workers.submit(self._examples[index]) for index in indices]
            return
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="prompt-prefetcher")
        self._prompts = [self._executor.submit(self._encode, index) for index in indices]
        self._executor.shutdown(wait=False)  # the thread ends after the last prompt

    def wait(self) -> None:
        """Block until the thread is done: tokenizers need not be thread-safe."""
        if self._executor:
            wait(self._prompts)

    def take(self, indices: Sequence[int]) -> list[Pending] | None:
        """Return the prompts of these rows, which need not be encoded yet.

        Returns:
            None if other rows or none were begun, and no process is there to encode these.
        """
        if self._indices != list(indices):
            self.drop()
            if not self.in_processes:
                return None
            self.begin(indices)
        self.wait()
        prompts, self._prompts = self._prompts, []
        self.drop()
        return prompts

    def first(self, indices: Sequence[int]) -> list[Pending] | None:
        """Return the prompts of these rows, if those of the last ``begin`` start with them, and keep all."""
        self.wait()
        same = self._indices[: len(indices)] == list(indices)
        return self._prompts[: len(indices)] if same else None

    def drop(self) -> None:
        """Drop the prefetched prompts; the thread has ended when this returns."""
        for prompt in self._prompts:
            prompt.cancel()
        if self._executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._indices, self._prompts, self._executor = [], [], None


def start_workers(
    chosen: int | None,
    accelerator: Accelerator,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    say: Callable[[str], None],
) -> PromptWorkers | None:
    """Start the processes that encode this process's prompts, and do not wait for them.

    Args:
        chosen: ``data.workers``.
        accelerator: the run's accelerator.
        encoder: encodes the prompts.
        examples: the rows; None are started of their own accord if no row has an image or a video.
        say: called with a line when they fail.
    """
    count = default_workers(accelerator, examples) if chosen is None else chosen
    if not count:
        return None
    return PromptWorkers(encoder, count, pinned=accelerator.device.type == "cuda", say=say)


def default_workers(accelerator: Accelerator, examples: Sequence[Example]) -> int:
    """Return how many processes encode prompts where the config does not say."""
    # On a CPU the update itself keeps all cores busy.
    if accelerator.device.type == "cpu" or not any(example.images or example.videos for example in examples):
        return 0
    share = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(MOST_WORKERS, share - 1))
