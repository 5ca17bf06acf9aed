"""Background threads of the collector: scores while sampling goes on, and the next iteration's prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from mm_cpgd.policy import EncodedPrompt

Encode = Callable[[int], EncodedPrompt]


@contextmanager
def second_thread(name: str) -> Iterator[ThreadPoolExecutor]:
    """Give a thread that works off what is submitted, in order.

    However the block ends, the thread ends with it; what it has not begun by then is dropped.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class PromptsAhead:
    """Encodes the prompts of some rows before they are asked for; holds those of one ``begin`` at most.

    Only an offer: prompts that were not made ready, or could not be, are encoded by whoever needs them.

    Args:
        encode: encodes the prompt of one dataset row.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._indices: list[int] = []
        self._prompts: list[Future[EncodedPrompt]] = []
        self._executor: ThreadPoolExecutor | None = None

    def begin(self, indices: Sequence[int]) -> None:
        """Start to encode these rows' prompts in the background, in place of what was begun before."""
        self.drop()
        self._indices = list(indices)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="prompts-ahead")
        self._prompts = [self._executor.submit(self._encode, index) for index in indices]
        self._executor.shutdown(wait=False)  # the thread ends by itself after the last prompt

    def wait(self) -> None:
        """Block until the thread is done: tokenizers need not stand two threads at a time."""
        wait(self._prompts)

    def take(self, indices: Sequence[int]) -> list[EncodedPrompt] | None:
        """Wait for the prompts and hand them over.

        Returns:
            None if other rows were begun, or none, or one of these failed: encoding it again says why.
        """
        try:
            return [one.result() for one in self._prompts] if self._indices == list(indices) else None
        except Exception:
            return None
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget what was begun; its thread has ended when this returns."""
        if self._executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._indices, self._prompts, self._executor = [], [], None
