"""HTTP POST with a limit of time for the whole exchange, however slowly the other side sends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

# More is no reply to a question.
MAX_BYTES = 64 << 20
_PIECE = 1 << 16
# Errors of a request that would fail again in the same way: a malformed address or header.
_MALFORMED = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
)


class Malformed(Exception):
    """A request that cannot be sent."""


class ConnectionLost(Exception):
    """There is no complete reply: no connection, one that ended early, or not all of it in time."""


@dataclass(frozen=True)
class HttpReply:
    """A complete reply of any status.

    Attributes:
        status: the HTTP status.
        reason: the words of the status line.
        headers: names are case-insensitive.
        body: decompressed.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class HttpSession:
    """Connections that are kept for further requests. May be used from many threads.

    The time-outs of sockets bound the silence between two bytes. Here a timer shuts the socket down, which
    ends every wait on it: for the handshake, the headers, a piece of the body.

    Args:
        connections: number of connections that are kept.
    """

    def __init__(self, connections: int) -> None:
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(pool_maxsize=connections))

    def post(
        self,
        url: str,
        body: Mapping[str, Any],
        timeout: float,
        authorize: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = None,
    ) -> HttpReply:
        """Send JSON and return the reply; redirects are not followed.

        Args:
            url: the address.
            body: JSON values.
            timeout: seconds until the last byte of the reply has arrived.
            authorize: adds credentials to the request.

        Raises:
            Malformed, ConnectionLost: there is no reply.
        """
        with _Limit(timeout) as limit:
            try:
                # No redirects: requests would repeat a redirected POST as a GET.
                reply = self._session.post(
                    url, json=body, timeout=timeout, auth=authorize, allow_redirects=False, stream=True
                )
                with reply:
                    content = _content(reply)
            except _MALFORMED as error:
                raise Malformed(str(error)) from error
            except (requests.RequestException, HTTPError, HTTPException, OSError) as error:
                late = limit.exceeded or isinstance(error, requests.Timeout)
                raise ConnectionLost(_late(timeout) if late else _lost(error)) from error
        # A body without a length just seems to end when the socket is shut down.
        if limit.exceeded:
            raise ConnectionLost(_late(timeout))
        return HttpReply(reply.status_code, reply.reason or "", reply.headers, content)


def _late(timeout: float) -> str:
    return f"no complete response within {timeout:g} s"


def _lost(error: Exception) -> str:
    there = isinstance(
        error, (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    )
    return f"{'the response ended early' if there else 'no connection'} ({error})"


def _content(reply: requests.Response) -> bytes:
    found = bytearray()
    for piece in reply.iter_content(_PIECE):
        found += piece
        if len(found) > MAX_BYTES:
            raise ConnectionLost(f"a response of more than {MAX_BYTES >> 20} MiB")
    return bytes(found)


class _Limit:
    """Limit of time for what the current thread does in the block with connections of this module."""

    def __init__(self, seconds: float) -> None:
        self.exceeded = False
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Limit:
        _current.limit = self
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        _current.limit = None

    def note(self, connection: HTTPConnection) -> None:
        """Note the connection in use; one that will not be kept forgets its socket before the body."""
        self._connection = connection
        self._socket = connection.sock or self._socket
        if self.exceeded:
            self._shut()

    def _end(self) -> None:
        self.exceeded = True
        self._shut()

    def _shut(self) -> None:
        used = (self._connection.sock if self._connection else None) or self._socket
        if used is not None:
            with contextlib.suppress(OSError):  # not connected any more
                used.shutdown(socket.SHUT_RDWR)


_current = threading.local()


def _note(connection: HTTPConnection) -> None:
    limit: _Limit | None = getattr(_current, "limit", None)
    if limit is not None:
        limit.note(connection)


class _Plain(HTTPConnection):
    def connect(self) -> None:
        _note(self)
        super().connect()
        _note(self)

    def request(self, *arguments: Any, **options: Any) -> None:
        _note(self)
        super().request(*arguments, **options)
        _note(self)


class _Secure(_Plain, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        return manager
