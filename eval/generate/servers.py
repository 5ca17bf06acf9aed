"""Several servers of one model: requests by load, and servers that fail left out until they reply again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any
from weakref import ref

from eval.generate.client import REQUEST_ERRORS, Endpoint, EndpointError, TransientError, Usage
from eval.generate.reply import Reply

# Consecutive failures after which a server is left out.
_TROUBLES = 3
# Status of a server that works and has too much to do.
_BUSY = 429
# Upper bound on the seconds between two looks at a server that is left out.
_RARELY = 300.0


@dataclass
class _Server:
    """One of the servers.

    Attributes:
        endpoint: its client.
        open: requests without a reply.
        given: all requests that it got.
        troubles: failures since its last reply.
        alive: whether it gets requests.
        left_out: how often it was left out since its last reply.
        trouble: its last failure.
        refused: the status with which it refused address, model or key; it has never replied.
    """

    endpoint: Endpoint
    open: int = 0
    given: int = 0
    troubles: int = 0
    alive: bool = True
    left_out: int = 0
    trouble: str = ""
    refused: int | None = None


class EndpointPool:
    """Several servers of one model, used like one ``Endpoint``. May be used from many threads.

    A request that failed is sent to another server. A server that fails three times in a row, or that has
    never replied and refuses address, model or key, gets no requests until it replies again.

    Args:
        endpoints: at least one; their retries are not used.
        say: told that a server is left out or comes back.
        max_retries: further attempts of a request after failures that may be temporary.
        patience: seconds to wait for a server to come back if none is left.
        look: seconds until a server that was left out is first looked at again.
        first_wait: bound of the first back-off in seconds if there is no other server; it doubles.
        longest_wait: bound of every back-off.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        say: Callable[[str], None] = lambda text: None,
        max_retries: int = 5,
        patience: float = 60.0,
        look: float = 5.0,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
    ) -> None:
        self._servers = [_Server(one) for one in endpoints]
        self._say, self._max_retries, self._patience, self._look = say, max_retries, patience, look
        self._first_wait, self._longest_wait = first_wait, longest_wait
        self._changed = Condition()
        self.model = endpoints[0].model
        self.url = ", ".join(sorted(one.url for one in endpoints))
        self.concurrency = sum(one.concurrency for one in endpoints)

    @property
    def usage(self) -> Usage:
        """Usage of all servers."""
        used = [one.endpoint.usage for one in self._servers]
        return Usage(
            sum(one.requests for one in used),
            sum(one.prompt_tokens for one in used),
            sum(one.completion_tokens for one in used),
        )

    def chat(self, messages: Sequence[Mapping[str, Any]], **sampling: Any) -> Reply:
        """Return the model's reply to a conversation; arguments as for ``Endpoint.chat``.

        Raises:
            EndpointError: there was no reply, and other servers and retries failed or were pointless.
        """
        failed, failures = None, 0
        while True:
            server = self._take(failed)
            outcome = self._attempt(server, messages, sampling)
            if isinstance(outcome, Reply):
                return outcome
            failed, failures = server, failures + 1
            if outcome.status in REQUEST_ERRORS:
                raise outcome
            if failures > self._max_retries:
                raise EndpointError(f"{outcome} ({failures} attempts)", status=outcome.status) from outcome
            self._back_off(server, failures)

    def _attempt(
        self, server: _Server, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]
    ) -> Reply | EndpointError:
        try:
            reply = server.endpoint.attempt(messages, sampling)
        except EndpointError as error:
            self._note_failure(server, error)
            return error
        else:
            with self._changed:
                server.troubles = server.left_out = 0
            return reply
        finally:
            with self._changed:
                server.open -= 1
                self._changed.notify_all()

    def _take(self, failed: _Server | None) -> _Server:
        """Return the live server with the least load, if possible not the one that just failed.

        Raises:
            EndpointError: none has come back in time.
        """
        with self._changed:
            since = time.monotonic()
            while True:
                alive = [one for one in self._servers if one.alive]
                free = [one for one in alive if one.open < one.endpoint.concurrency]
                if free:
                    chosen = min(free, key=lambda one: (one is failed, _load(one)))
                    chosen.open += 1
                    chosen.given += 1
                    return chosen
                since = time.monotonic() if alive else since
                if not alive and (time.monotonic() - since >= self._patience or self._refused()):
                    raise EndpointError(self._none_left(), status=self._refused())
                self._changed.wait(min(1.0, self._patience))

    def _refused(self) -> int | None:
        """Return the status of the last server if all refuse address, model or key, else None."""
        return self._servers[-1].refused if all(one.refused for one in self._servers) else None

    def _none_left(self) -> str:
        troubles = "; ".join(one.trouble for one in self._servers)
        return f"none of the {len(self._servers)} servers replies: {troubles}"

    def _note_failure(self, server: _Server, error: EndpointError) -> None:
        if error.status in REQUEST_ERRORS or error.status == _BUSY:
            if isinstance(error, TransientError) and error.wait is not None:
                server.endpoint.pause(error.wait)
            return
        hopeless = not isinstance(error, TransientError) and not server.endpoint.usage.requests
        with self._changed:
            server.troubles += _TROUBLES if hopeless else 1
            server.trouble = str(error)
            server.refused = error.status if hopeless and error.setup else None
            if not server.alive or server.troubles < _TROUBLES:
                return
            server.alive = False
            others = sum(one.alive for one in self._servers)
        self._say(
            f"warning: the server {server.endpoint.base_url} is left out ({error}); "
            + (f"its questions go to the other {others}" if others else "no other one is left")
        )
        # One that failed again at once is looked at more rarely.
        seconds = min(self._look * 2**server.left_out, _RARELY)
        Thread(target=_watch, args=(ref(self), server, seconds), name="server look", daemon=True).start()

    def _take_back(self, server: _Server) -> None:
        with self._changed:
            server.alive, server.troubles, server.refused = True, 0, None
            server.left_out += 1
            self._changed.notify_all()
        self._say(f"the server {server.endpoint.base_url} replies again")

    def _back_off(self, failed: _Server, failures: int) -> None:
        """Wait, unless another server can be asked at once."""
        if not any(one.alive and one is not failed for one in self._servers):
            bound = min(self._first_wait * 2 ** (failures - 1), self._longest_wait)
            time.sleep(random.uniform(0, bound))


def _watch(pool: ref[EndpointPool], server: _Server, seconds: float) -> None:
    """Take a server back once it replies; end with the pool."""
    while True:
        time.sleep(seconds)
        if pool() is None:
            return
        if server.endpoint.alive() and (used := pool()) is not None:
            used._take_back(server)
            return


def _load(server: _Server) -> tuple[bool, float, int]:
    # A server that asked for a wait comes last.
    waiting = server.endpoint.limiter.blocked > 1
    return waiting, server.open / server.endpoint.concurrency, server.given


def open_endpoint(
    addresses: Sequence[str],
    model: str,
    api_key: str | None = None,
    *,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Endpoint | EndpointPool:
    """Return the client of one server, or of several.

    Args:
        addresses: each including ``/v1``.
        model: its name on every server.
        api_key: sent to every server, None if they need none.
        say: told that one of several servers is left out or comes back.
        options: of ``Endpoint``; limits are those of each server.

    Raises:
        EndpointError: no address, or an option that is none.
    """
    found = [Endpoint(one, model, api_key, **options) for one in dict.fromkeys(addresses)]
    if not found:
        raise EndpointError("name a server: --endpoint http://localhost:8000/v1")
    # Of servers that fail together a question tries each before it waits for one to come back.
    return found[0] if len(found) == 1 else EndpointPool(found, say=say, max_retries=5 + len(found))
