"""Encoding of prompts, also in the background, and the thread that scores while sampling continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from data import DataError, Example
from mm_cpgd.policy import EncodedPrompt, PromptEncoder

Encode = Callable[[int], EncodedPrompt]


def encode_rows(
    encoder: PromptEncoder, examples: Sequence[Example]
) -> tuple[list[EncodedPrompt | None], list[str]]:
    """Encode prompts; a row whose image has vanished since the start becomes None.

    Returns:
        The prompts in order, and one line for each row that is lost.
    """
    prompts: list[EncodedPrompt | None] = []
    lost = []
    for example in examples:
        try:
            prompts.append(encoder.encode(example))
        except (
            DataError,
            ValueError,
        ) as error:  # gone or damaged, or another image that the processor refuses
            prompts.append(None)
            lost.append(lost_line(example, error))
    return prompts, lost


def lost_line(example: Example, reason: object) -> str:
    """Return the line about a row that is left out."""
    return f"row {example.id!r} ({example.source}) is left out: {reason}"


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
        encode: encodes the prompt of one dataset row.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._indices: list[int] = []
        self._prompts: list[Future[EncodedPrompt]] = []
        self._executor: ThreadPoolExecutor | None = None

    def begin(self, indices: Sequence[int]) -> None:
        """Start to encode these rows' prompts; those of an earlier ``begin`` are dropped."""
        self.drop()
        self._indices = list(indices)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="prompt-prefetcher")
        self._prompts = [self._executor.submit(self._encode, index) for index in indices]
        self._executor.shutdown(wait=False)  # the thread ends after the last prompt

    def wait(self) -> None:
        """Block until the thread is done: tokenizers need not be thread-safe."""
        wait(self._prompts)

    def take(self, indices: Sequence[int]) -> list[EncodedPrompt] | None:
        """Wait for the prompts and return them.

        Returns:
            None if other rows or none were requested, or one failed: encoding it again raises the error.
        """
        try:
            return [one.result() for one in self._prompts] if self._indices == list(indices) else None
        except Exception:
            return None
        finally:
            self.drop()

    def drop(self) -> None:
        """Drop the prefetched prompts; the thread has ended when this returns."""
        if self._executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._indices, self._prompts, self._executor = [], [], None
