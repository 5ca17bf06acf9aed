"""Pool of processes that open images and encode prompts while this one samples and learns.

They are plain subprocesses connected by sockets, as those of ``rewards.workers.pool`` and for its reasons:
children of ``multiprocessing`` would carry out the caller's main script again. They never load the model or
touch a GPU, and end when their socket closes, so none outlives this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from data import Example
from data.images import portable
from data.videos.reference import portable_video
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.prompt_workers.messages import receive, send
from mm_cpgd.policy.prompt_workers.process import READY
from mm_cpgd.policy.prompts import PromptEncoder

# Processes that may end before their work without ending the use of all.
MAX_LOST = 3
_ROOT = str(Path(__file__).resolve().parents[3])


class PromptWorkers:
    """Encodes prompts in other processes; an aid only, which may fail for any prompt.

    A prompt that could not be encoded, for whatever reason, is None: the caller encodes it itself, and meets
    the error that it would have met without processes. One thread of this process waits for each of them.

    Args:
        encoder: encodes the prompts; positions are computed here, with its model.
        count: number of processes.
        pinned: receive the prompts in pinned memory, from which a GPU can fetch them by itself.
        say: called with a line when a process ends before its work.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        count: int,
        *,
        pinned: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.encoder = encoder
        self.pinned = pinned
        self._say = say
        self._own = threading.local()
        self._lock = threading.Lock()
        self._processes: set[_Process] = set()
        self._lost = 0
        self._closed = False
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="prompt-workers")
        self._started = [self._threads.submit(self._process) for _ in range(count)]

    @property
    def ready(self) -> bool:
        """Whether a process has loaded its libraries and processes have not failed repeatedly."""
        return not self._closed and any(
            one.done() and not one.exception() and one.result() for one in self._started
        )

    def wait(self) -> None:
        """Block until all processes have started, or failed to."""
        wait(self._started)

    def submit(self, example: Example) -> Future[EncodedPrompt | None]:
        """Encode an example's prompt in one of the processes, after those submitted before."""
        return self._threads.submit(self._encode, example)

    def close(self) -> None:
        """End the processes; prompts that are not encoded by then are None or cancelled."""
        self._stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _stop(self) -> None:
        with self._lock:
            self._closed = True
            processes = list(self._processes)
        for process in processes:
            process.end()

    def _encode(self, example: Example) -> EncodedPrompt | None:
        process = self._process()
        if process is None:
            return None
        message = _to_encode(example)
        try:
            send(process.connection, message)
        except OSError:
            self._note_end(process)
            return None
        try:
            inputs = receive(process.connection, pinned=self.pinned)
        except Exception:  # whatever is left of the answer could not be told from the next one
            self._note_end(process)
            return None
        return None if inputs is None else self.encoder.prompt(inputs, example)

    def _process(self) -> _Process | None:
        """Return the process of this thread, a new one if there is none; None if processes fail."""
        found: _Process | None = getattr(self._own, "process", None)
        if found is None and not self._closed:
            found = self._start()
            self._own.process = found
        return found

    def _start(self) -> _Process | None:
        try:
            process = self._new()
        except OSError as error:  # too many processes or open files
            self._give_up(f"prompts are encoded in this process: another one cannot be started: {error}")
            return None
        if process is None:
            return None
        try:
            send(process.connection, self.encoder.without_model())
            answer = receive(process.connection)
        except (EOFError, OSError):
            self._note_end(process)
            return None
        except Exception as error:  # a processor of a model's own code may be no value to pickle
            answer = f"{type(error).__name__}: {error}"
        if answer != READY:
            self._give_up(f"prompts are encoded in this process: another one cannot: {answer}")
            return None
        return process

    def _new(self) -> _Process | None:
        with self._lock:
            if self._closed:
                return None
            process = _Process()
            self._processes.add(process)
        return process

    def _note_end(self, process: _Process) -> None:
        """Replace a process that has ended by itself, or do without any after several."""
        self._own.process = None
        status = process.end(wait=1.0)
        with self._lock:
            self._processes.discard(process)
            closed, self._lost = self._closed, self._lost + 1
        if closed:
            return
        line = f"a process that encodes prompts has ended with exit status {status}"
        if self._lost > MAX_LOST:
            self._give_up(f"{line}, and {MAX_LOST} before it; prompts are encoded in this process")
        else:
            self._say(f"warning: {line}; this process encodes its prompt, and another one takes its place")

    def _give_up(self, line: str) -> None:
        with self._lock:
            already = self._closed
        self._stop()
        if not already:
            self._say(f"warning: {line}")


class _Process:
    """A process that encodes prompts; ``connection`` is its socket."""

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        path = [_ROOT, *(entry for entry in sys.path if entry)]
        code = f"from mm_cpgd.policy.prompt_workers.process import main; main({theirs.fileno()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"],
                stdin=subprocess.DEVNULL,
                # What libraries say when they are loaded, this process has said already.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is sent to all processes of a terminal's foreground group.
                start_new_session=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                    "CUDA_VISIBLE_DEVICES": "",
                },
            )

    def end(self, wait: float = 0.0) -> int:
        """Return the exit status; a process that does not end in time is killed.

        A thread that waits for it gets ``EOFError``.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait)
        self._process.kill()
        status = self._process.wait()
        self.connection.close()
        return status


def _to_encode(example: Example) -> Example:
    """Return the example without what its prompt does not need, and which may be no value to pickle."""
    images = tuple(portable(image) for image in example.images)
    videos = tuple(portable_video(video) for video in example.videos)
    return replace(example, images=images, videos=videos, solution=None, answer="", meta={})
