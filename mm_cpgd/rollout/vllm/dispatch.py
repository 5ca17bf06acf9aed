"""Requests of one call, given to servers by load, and again to others where a server fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, Queue
from typing import Any, NoReturn

from mm_cpgd.errors import EngineFailed
from mm_cpgd.rollout.vllm.backend import VllmCompletion
from mm_cpgd.rollout.vllm.client import Messages, RequestRefused, ServerFailed, TokenRequest
from mm_cpgd.rollout.vllm.pool import POLL, Server, ServerPool, check_requested, described


@dataclass
class Job:
    """One completion to be sampled.

    Attributes:
        place: its number.
        conversation: messages, or tokens with images.
        seed: of its tokens.
        failures: how often a server has failed at it.
        home: address of the server that holds its prefix; empty: none.
    """

    place: int
    conversation: Messages | TokenRequest
    seed: int
    failures: int = 0
    home: str = ""


@dataclass
class Desk:
    """The requests of this call at one server.

    Attributes:
        waiting: of the prompts that it was given; they stay, as it holds their prefix.
        open: sent, without an answer.
        unverified: answered, but the server may have started anew before, with its first weights.
        looking: whether it is being asked how it is.
    """

    waiting: deque[Job] = field(default_factory=deque)
    open: int = 0
    unverified: list[Job] = field(default_factory=list)
    looking: bool = False

    @property
    def load(self) -> int:
        """Requests that are not answered."""
        return self.open + len(self.waiting)


class Dispatch:
    """One call's requests and answers; everything is decided in the calling thread.

    Each prompt's requests go to one server, that with the fewest requests when there is room for them.
    An answer counts once the server has shown the stamp that it got with the weights: it has not started
    anew between the weights and the answer.

    Args:
        pool: the servers.
        conversations: one for each completion; those of one prompt are the same object, in sequence.
        seeds: one for each completion.
        options: vLLM's sampling options.
        at_once: whether answers are verified as they come, and not together.

    Attributes:
        verified: completions that count, in the order in which they were found to.

    Raises:
        ValueError: the servers have not got any weights yet.
    """

    def __init__(
        self,
        pool: ServerPool,
        conversations: Sequence[Messages | TokenRequest],
        seeds: Sequence[int],
        options: Mapping[str, Any],
        *,
        at_once: bool = False,
    ) -> None:
        if not pool.version:
            raise ValueError("vLLM servers get weights before prompts")
        self.pool = pool
        self.options = options
        self.at_once = at_once
        self.prompts: deque[list[Job]] = deque()
        self.answers: list[VllmCompletion | None] = []
        self.verified: list[Job] = []
        self.left = 0
        for conversation, seed in zip(conversations, seeds, strict=True):
            self.add(conversation, seed)
        self.desks = {server.url: Desk() for server in pool.servers}
        self.events: Queue[Callable[[], None]] = Queue()
        self.none_since: float | None = None

    def add(self, conversation: Messages | TokenRequest, seed: int, home: str = "") -> int:
        """Add a completion to be sampled, at that server if it has room; return its number."""
        job = Job(len(self.answers), conversation, seed, home=home)
        self.answers.append(None)
        self.left += 1
        if self.prompts and self.prompts[-1][0].conversation is conversation:
            self.prompts[-1].append(job)
        else:
            self.prompts.append([job])
        return job.place

    def go_on(self, threads: ThreadPoolExecutor) -> None:
        """Send what can be sent, and note what happens within ``POLL`` seconds; errors as ``run``."""
        self._send(threads)
        self._look(threads)
        self._note_next()
        check_requested()
        self._check_any_alive()

    def run(self) -> list[VllmCompletion]:
        """Return the completions in order.

        Raises:
            EngineFailed: no server has answered for ``limits.wait`` seconds, one refuses a request, or a
                request has failed ``limits.tries`` times.
            Interrupted: the process was asked to stop meanwhile.
        """
        threads = ThreadPoolExecutor(self._most_threads(), thread_name_prefix="vllm")
        try:
            while self.left or any(desk.unverified for desk in self.desks.values()):
                self.go_on(threads)
        finally:
            if self.left:
                self.pool.close()
            threads.shutdown(wait=True, cancel_futures=True)
        return [answer for answer in self.answers if answer is not None]

    def _most_threads(self) -> int:
        servers = len(self.pool.servers)
        return min(self.left, self.pool.limits.requests * servers) + servers

    def _send(self, threads: ThreadPoolExecutor) -> None:
        """Give prompts to servers that have room, and send what waits there."""
        room = self.pool.limits.requests
        while self.prompts and (free := [one for one in self._alive() if self._desk(one).load < room]):
            jobs = self.prompts.popleft()
            at_home = [one for one in free if one.url == jobs[0].home]
            chosen = at_home[0] if at_home else self.pool.choose(free, lambda one: self._desk(one).load)
            for job in jobs:
                job.home = chosen.url
            self._desk(chosen).waiting.extend(jobs)
        for server in self._alive():
            desk = self._desk(server)
            while desk.waiting and desk.open < room:
                desk.open += 1
                threads.submit(self._ask, server, server.since, desk.waiting.popleft())

    def _ask(self, server: Server, since: int, job: Job) -> None:
        """Send a request and wait for its answer; in a thread of its own."""
        outcome: Any
        try:
            if isinstance(job.conversation, TokenRequest):
                outcome = server.client.generate(job.conversation, job.seed, self.options)
            else:
                outcome = server.client.chat(job.conversation, job.seed, self.options)
        except Exception as error:
            outcome = error
        self.events.put(partial(self._note, server, since, job, outcome))

    def _note(self, server: Server, since: int, job: Job, outcome: Any) -> None:
        desk = self._desk(server)
        desk.open -= 1
        if since != server.since:  # from before it was left out
            self.prompts.appendleft([job])
        elif isinstance(outcome, ServerFailed):
            self._fail(server, job, outcome)
        elif isinstance(outcome, RequestRefused):
            raise EngineFailed(f"the vLLM server {server.url} refuses a request: {outcome}")
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            self.answers[job.place] = outcome
            self.left -= 1
            desk.unverified.append(job)

    def _fail(self, server: Server, job: Job, error: ServerFailed) -> None:
        job.failures += 1
        self.prompts.appendleft([job])
        self._leave_out(server, str(error))
        if job.failures >= self.pool.limits.tries:
            raise EngineFailed(
                f"a request has failed {job.failures} times, last as the vLLM server {server.url} {error}"
            )

    def _leave_out(self, server: Server, trouble: str) -> None:
        """Give a server's requests to others; what it has answered depends on the next look."""
        desk = self._desk(server)
        if desk.waiting:
            self.prompts.appendleft(list(desk.waiting))
            desk.waiting = deque()
        self.pool.leave_out(server, trouble)

    def _doubt(self, desk: Desk) -> None:
        """Sample again what a server may have answered with other weights."""
        for job in desk.unverified:
            self.answers[job.place] = None
            self.left += 1
            self.prompts.appendleft([job])
        desk.unverified = []

    def _look(self, threads: ThreadPoolExecutor) -> None:
        """Ask servers that were left out, and those with requests, how they are, when it is time."""
        now = time.monotonic()
        for server in self.pool.servers:
            desk = self._desk(server)
            last = (self.at_once or not self.left) and desk.unverified
            wanted = (not server.alive or desk.open or desk.unverified) and now >= server.look_at
            if (last or wanted) and not desk.looking:
                desk.looking = True
                threads.submit(self._ask_how, server, server.since, server.alive, list(desk.unverified))

    def _ask_how(self, server: Server, since: int, alive: bool, answered: Iterable[Job]) -> None:
        """Verify answers, or revive a server; in a thread of its own."""
        outcome: Any
        try:
            if alive:
                server.client.health()
                outcome = server.client.stamp() if answered else server.stamp
            else:
                outcome = self.pool.revive(server)
        except (ServerFailed, RequestRefused) as error:
            outcome = error
        except Exception as error:
            self.events.put(partial(_raise, error))
            return
        self.events.put(partial(self._note_how, server, since, alive, answered, outcome))

    def _note_how(
        self, server: Server, since: int, alive: bool, answered: Iterable[Job], outcome: Any
    ) -> None:
        desk = self._desk(server)
        desk.looking = False
        if since != server.since:
            return
        if outcome == server.stamp:
            places = {job.place for job in answered}
            self.verified += [job for job in desk.unverified if job.place in places]
            desk.unverified = [job for job in desk.unverified if job.place not in places]
        if alive:
            self._note_alive(server, outcome)
        else:
            self._note_left_out(server, outcome)

    def _note_alive(self, server: Server, outcome: Any) -> None:
        if outcome == server.stamp:
            server.look_at = time.monotonic() + self.pool.limits.look
        elif isinstance(outcome, str):
            self._leave_out(server, "has started anew, or has got weights from elsewhere")
        else:
            self._leave_out(server, str(outcome))

    def _note_left_out(self, server: Server, outcome: Any) -> None:
        self._doubt(self._desk(server))
        if isinstance(outcome, str):
            self.pool.take_back(server, outcome)
        else:
            self._leave_out(server, str(outcome))

    def _note_next(self) -> None:
        """Note all that has happened, at least what happens within ``POLL`` seconds."""
        for event in self._events():
            event()

    def _events(self) -> Iterator[Callable[[], None]]:
        try:
            yield self.events.get(timeout=POLL)
            while True:
                yield self.events.get_nowait()
        except Empty:
            return

    def _check_any_alive(self) -> None:
        if any(self._alive()):
            self.none_since = None
            return
        now = time.monotonic()
        self.none_since = self.none_since or now
        looking = any(desk.looking for desk in self.desks.values())
        if now - self.none_since > self.pool.limits.wait and not looking:
            troubles = {server.url: server.trouble for server in self.pool.servers}
            raise EngineFailed(
                f"no vLLM server has answered for {self.pool.limits.wait:g} s (rollout.vllm.wait): "
                f"{described(troubles)}"
            )

    def _alive(self) -> list[Server]:
        return [server for server in self.pool.servers if server.alive]

    def _desk(self, server: Server) -> Desk:
        return self.desks[server.url]


def _raise(error: Exception) -> NoReturn:
    raise error
