"""Several vLLM servers of one process: which of them answer, with which weights, and who gets what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from mm_cpgd.errors import EngineFailed, UserError
from mm_cpgd.interrupt import Interrupted, requested
from mm_cpgd.rollout.vllm.client import RequestRefused, ServerFailed, VllmClient

START = (
    "start it as described in docs/vllm.md, with VLLM_SERVER_DEV_MODE=1 in its environment: "
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs …"
)
# The log-probabilities of the distribution that is sampled from.
PROCESSED = "processed_logprobs"
# Seconds between two looks at requests, and at whether the run shall stop.
POLL = 0.1


class WeightTransport(Protocol):
    """How weights reach the servers.

    Attributes:
        resends: whether a single process can send the newest weights once more.
    """

    resends: bool

    @property
    def version(self) -> str:
        """Name of the newest weights."""
        ...

    def store(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take the policy's weights; on the main process."""
        ...

    def send(self, client: VllmClient, version: str) -> str:
        """Let a server use them; return its stamp from then on. Raises ``ServerFailed``."""
        ...

    def clean(self) -> None:
        """Remove what only earlier weights need."""
        ...

    def remove(self) -> None:
        """Remove everything."""
        ...


@dataclass
class Server:
    """What this process knows of a server.

    Attributes:
        client: sends requests.
        stamp: its stamp with the newest weights (``VllmClient.stamp``); None: it has never got them.
        alive: whether it gets prompts.
        trouble: why not.
        since: how often it was left out; answers to requests from before do not count.
        look_at: when it is asked again, in seconds of ``time.monotonic``.
        looks: how often it was asked in vain since it was left out.
        given: number of the last prompt that it got, over all servers.
    """

    client: VllmClient
    stamp: str | None = None
    alive: bool = False
    trouble: str = "has not been asked yet"
    since: int = 0
    look_at: float = 0.0
    looks: int = 0
    given: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return self.client.url


@dataclass(frozen=True)
class Limits:
    """Numbers of requests and seconds.

    Attributes:
        requests: open requests to a server.
        wait: seconds without any server after which the run ends.
        look: seconds between two looks at a server with requests: whether it lives, and still has its
            weights. One that was left out is asked half as often each time while there are others.
        tries: failures of a request after which the run ends.
    """

    requests: int = 64
    wait: float = 240.0
    look: float = 10.0
    tries: int = 5


@dataclass
class ServerPool:
    """The servers, and what they have in common.

    Attributes:
        servers: at least one.
        transport: how they get weights.
        limits: see there.
        say: prints a line about a server that is left out or comes back.
        version: name of the weights that prompts need; empty before the first ``publish``.
        processed: whether log-probabilities have to be those after temperature and cuts.
    """

    servers: Sequence[Server]
    transport: WeightTransport
    limits: Limits = field(default_factory=Limits)
    say: Callable[[str], None] = lambda text: None
    version: str = ""
    processed: bool = False

    def publish(self) -> dict[str, str]:
        """Let all servers use the newest weights, on the main process; return the stamps by address.

        Raises:
            EngineFailed: no server has taken them within ``limits.wait`` seconds, or all refuse.
            UserError: a server lacks the routes for it.
            Interrupted: the process was asked to stop meanwhile.
        """
        version, deadline = self.transport.version, time.monotonic() + self.limits.wait
        while True:
            outcomes = everywhere(self.servers, lambda server: self._send(server, version))
            stamps = {url: one for url, one in outcomes.items() if isinstance(one, str)}
            failures = {url: str(one) for url, one in outcomes.items() if isinstance(one, ServerFailed)}
            if stamps:
                self.adopt(version, stamps, failures)
                return stamps
            if all(one.answered for one in outcomes.values()) or time.monotonic() > deadline:
                raise EngineFailed(f"no vLLM server takes the weights: {described(failures)}")
            for server in self.servers:
                self.leave_out(server, failures[server.url])
            pause(min(self.limits.look, self.limits.wait))

    def adopt(self, version: str, stamps: Mapping[str, str], failures: Mapping[str, str]) -> None:
        """Note which servers have the newest weights; called on every process."""
        self.version = version
        for server in self.servers:
            server.stamp = stamps.get(server.url)
            if server.stamp is not None:
                self.take_back(server, server.stamp)
        for server in self.servers:
            if server.stamp is None:
                self.leave_out(server, failures.get(server.url, "did not take the weights"))

    def leave_out(self, server: Server, trouble: str) -> None:
        """Send nothing more to a server, and end what is open there; it is asked again later."""
        server.trouble = trouble
        if not server.alive and server.since:
            server.looks += 1
            rarely = 2.0 ** min(server.looks, 4) if any(one.alive for one in self.servers) else 1.0
            server.look_at = time.monotonic() + self.limits.look * rarely
            return
        server.alive, server.looks, server.look_at = False, 0, 0.0
        server.since += 1
        server.client.abort()
        others = sum(one.alive for one in self.servers)
        then = (
            f"its prompts go to the other {others}"
            if others
            else f"waiting up to {self.limits.wait:g} s for it"
        )
        self.say(f"warning: the vLLM server {server.url} {trouble}; {then}")

    def take_back(self, server: Server, stamp: str) -> None:
        """Let a server have prompts (again)."""
        if not server.alive and server.since:
            self.say(f"the vLLM server {server.url} answers again and has the current weights")
        server.stamp, server.alive = stamp, True
        server.look_at = time.monotonic() + self.limits.look

    def revive(self, server: Server) -> str:
        """Make sure that a server that answers has the newest weights; return its stamp.

        Raises:
            ServerFailed: it does not answer, or has not got them.
        """
        server.client.health()
        stamp = server.client.stamp()
        # Another process may have sent them.
        if stamp == server.stamp or stamp.startswith(f"version {self.version}/"):
            server.client.inspect()
            self.check(server)
            return stamp
        if not self.transport.resends:
            raise ServerFailed("answers, and gets weights with the next update", answered=True)
        return self._send(server, self.version)

    def check(self, server: Server) -> None:
        """Raise ``ServerFailed`` if a server's log-probabilities are of another kind than needed."""
        if self.processed and server.client.logprobs_mode not in ("", PROCESSED):
            raise ServerFailed(
                f"returns {server.client.logprobs_mode}, but with this rollout.temperature, top_p, top_k or "
                f"min_p it samples from another distribution; start it with --logprobs-mode {PROCESSED}",
                answered=True,
            )

    def _send(self, server: Server, version: str) -> str:
        server.client.inspect()
        self.check(server)
        return self.transport.send(server.client, version)

    def choose(self, servers: Sequence[Server], load: Callable[[Server], int]) -> Server:
        """Return the one of these servers that gets the next prompt: of those with the least load in turn."""
        chosen = min(servers, key=lambda server: (load(server), server.given))
        chosen.given = 1 + max(server.given for server in self.servers)
        return chosen

    def close(self) -> None:
        """End all requests."""
        for server in self.servers:
            server.client.abort()


def everywhere(servers: Sequence[Server], work: Callable[[Server], Any]) -> dict[str, Any]:
    """Do something with all servers at once; return results, or the ``ServerFailed``, by address.

    Raises:
        UserError: a server refuses a request.
        Interrupted: the process was asked to stop meanwhile.
    """
    with ThreadPoolExecutor(len(servers), thread_name_prefix="vllm") as threads:
        futures = {server.url: threads.submit(work, server) for server in servers}
        try:
            while wait(futures.values(), POLL).not_done:
                check_requested()
        finally:
            for server in servers:
                if not futures[server.url].done():
                    server.client.abort()
    return {url: _outcome(url, future) for url, future in futures.items()}


def check_requested() -> None:
    """Raise ``Interrupted`` if this process was asked to stop."""
    if requested():
        raise Interrupted


def pause(seconds: float) -> None:
    """Sleep; raises ``Interrupted`` if this process is asked to stop meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check_requested()
        time.sleep(POLL)


def described(failures: Mapping[str, Any]) -> str:
    """Return what is wrong with each server."""
    return "; ".join(f"{url} {failure}" for url, failure in failures.items())


def _outcome(url: str, future: Future[Any]) -> Any:
    try:
        return future.result()
    except ServerFailed as error:
        return error
    except RequestRefused as error:
        raise UserError(f"the vLLM server {url} refuses a request ({error}); {START}") from error
