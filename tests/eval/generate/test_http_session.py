"""HTTP session: the limit of time for a whole exchange, and replies that are not complete."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from eval.generate import http_session
from eval.generate.http_session import ConnectionLost, HttpSession, Malformed
from tests.fakes.chat_server import HttpReply, stub_server

Behaviour = Callable[[socket.socket], None]


@contextmanager
def raw_server(behave: Behaviour) -> Iterator[str]:
    """Run a server that does as it is told with each connection, once a request has arrived."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            behave(connection)
            # Closing with unread bytes would reset the connection.
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"
    finally:
        listening.close()


def dripping(start: bytes, piece: bytes) -> Behaviour:
    """Return a behaviour that sends the start, then the piece again and again, slowly."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.05)

    return behave


def sending(data: bytes) -> Behaviour:
    return lambda connection: connection.sendall(data)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_no_server_holds_a_request_for_longer_than_the_limit(start: bytes, piece: bytes) -> None:
    started = time.monotonic()
    with (
        raw_server(dripping(start, piece)) as url,
        pytest.raises(ConnectionLost, match=r"no complete response within 0\.4 s|ended early|no connection"),
    ):
        HttpSession(1).post(url, {}, 0.4)
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 2",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_reply_that_is_not_complete_is_no_reply(data: bytes) -> None:
    with raw_server(sending(data)) as url, pytest.raises(ConnectionLost):
        HttpSession(1).post(url, {}, 5)


def test_a_session_works_again_after_a_reply_that_was_too_slow() -> None:
    slow = HttpReply({"a": 1}, drip=0.2)
    with stub_server(slow, HttpReply({"a": 2})) as stub:
        session = HttpSession(1)
        with pytest.raises(ConnectionLost):
            session.post(stub.url, {}, 0.3)
        assert session.post(stub.url, {}, 5).body == b'{"a": 2}'


def test_a_request_within_its_limit_is_left_alone_afterwards() -> None:
    with stub_server(HttpReply({"a": 1})) as stub:
        session = HttpSession(1)
        for _ in range(3):
            assert session.post(stub.url, {}, 0.3).status == 200
            time.sleep(0.2)


def test_requests_of_several_threads_have_limits_of_their_own() -> None:
    slow, quick = HttpReply({"a": 1}, drip=0.2), HttpReply({"a": 2})
    with stub_server(by_prompt=lambda text: slow if text == "slow" else quick) as stub:
        session, found = HttpSession(4), dict[str, str]()

        def ask(name: str) -> None:
            try:
                body = {"messages": [{"content": name.split()[0]}]}
                found[name] = session.post(stub.url, body, 0.5).body.decode()
            except ConnectionLost as error:
                found[name] = str(error)

        threads = [
            threading.Thread(target=ask, args=(f"{kind} {i}",))
            for i in range(4)
            for kind in ("slow", "quick")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {found[f"quick {i}"] for i in range(4)} == {'{"a": 2}'}
    assert {found[f"slow {i}"] for i in range(4)} == {"no complete response within 0.5 s"}


def test_an_endless_reply_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "MAX_BYTES", 1 << 20)
    with (
        raw_server(sending(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (3 << 20))) as url,
        pytest.raises(ConnectionLost, match="more than 1 MiB"),
    ):
        HttpSession(1).post(url, {}, 5)


@pytest.mark.parametrize("url", ["http://[::1", "http://"])
def test_a_malformed_address_is_no_lost_connection(url: str) -> None:
    with pytest.raises(Malformed):
        HttpSession(1).post(url, {}, 5)
