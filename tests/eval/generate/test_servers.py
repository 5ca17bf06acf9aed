"""Several servers of one model: shared load, servers that fail and come back."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from eval.generate.client import Endpoint, EndpointError, Usage
from eval.generate.servers import EndpointPool, open_endpoint
from tests.fakes.chat_server import HttpReply, chat_reply, stub_server

QUESTION = [{"role": "user", "content": "How many?"}]
FAIL = HttpReply({}, 500)


@pytest.fixture(autouse=True)
def no_looks_after_a_test() -> Iterator[None]:
    """Let the pools of a test go, with the threads that look at their servers."""
    yield
    gc.collect()


def pool(
    *urls: str, said: list[str] | None = None, timeout: float = 5.0, concurrency: int = 4, **options: Any
) -> EndpointPool:
    """Return a pool that waits and looks in milliseconds; what it says is added to ``said``."""
    endpoints = [Endpoint(url, "tiny", concurrency=concurrency, timeout=timeout) for url in urls]
    quick = {"patience": 0.2, "look": 0.05, "first_wait": 0.001, **options}
    return EndpointPool(endpoints, say=(said if said is not None else []).append, **quick)


def ask(client: EndpointPool, count: int, threads: int = 4) -> list[str]:
    with ThreadPoolExecutor(threads) as executor:
        return [one.text for one in executor.map(lambda _: client.chat(QUESTION), range(count))]


def slowly(text: str, seconds: float) -> HttpReply:
    reply = chat_reply(text)
    reply.delay = seconds
    return reply


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_idle_servers_get_the_questions_in_turn() -> None:
    with stub_server(chat_reply("a")) as one, stub_server(chat_reply("b")) as two:
        client = pool(one.url, two.url)
        assert [client.chat(QUESTION).text for _ in range(4)] == ["a", "b", "a", "b"]
        assert client.usage == Usage(4, 28, 12)


def test_a_slow_server_gets_fewer_questions() -> None:
    with stub_server(slowly("a", 0.01)) as fast, stub_server(slowly("b", 0.2)) as slow:
        texts = ask(pool(fast.url, slow.url, concurrency=2), 24)
    assert texts.count("b") < 8 < texts.count("a")
    assert max(fast.most_at_once, slow.most_at_once) <= 2


def test_a_question_that_one_server_fails_is_asked_at_another() -> None:
    said: list[str] = []
    with stub_server(FAIL, chat_reply("a")) as bad, stub_server(chat_reply("b")) as good:
        client = pool(bad.url, good.url, said=said)
        assert client.chat(QUESTION).text == "b"
        # One failure is no reason to leave it out.
        assert {client.chat(QUESTION).text for _ in range(2)} == {"a", "b"}
    assert said == []


@pytest.mark.parametrize("failure", [FAIL, HttpReply(hang_up=True), HttpReply(b"<html>"), HttpReply({}, 404)])
def test_a_server_that_fails_is_left_out_with_a_warning_and_no_question_is_lost(failure: HttpReply) -> None:
    said: list[str] = []
    with stub_server(failure) as bad, stub_server(chat_reply("b")) as good:
        assert ask(pool(bad.url, good.url, said=said, look=60), 30) == ["b"] * 30
    (warning,) = said
    assert f"warning: the server {bad.url} is left out (" in warning
    assert "its questions go to the other 1" in warning
    assert len(bad.asked) <= 3 + 4


def test_a_server_that_died_gets_questions_again_once_it_is_back() -> None:
    said: list[str] = []
    with stub_server(chat_reply("b")) as good:
        with stub_server(chat_reply("a")) as dying:
            client = pool(dying.url, good.url, said=said)
            assert set(ask(client, 10)) == {"a", "b"}
        assert ask(client, 20) == ["b"] * 20
        assert [line.startswith("warning") for line in said] == [True]
        with stub_server(chat_reply("a"), port=urlsplit(dying.url).port or 0):
            wait_for(lambda: len(said) == 2)
            assert set(ask(client, 10)) == {"a", "b"}
    assert said[1] == f"the server {dying.url} replies again"


def test_questions_wait_for_a_server_to_come_back_when_none_is_left() -> None:
    with stub_server() as gone:
        pass
    said: list[str] = []
    client = pool(
        gone.url, gone.url.replace("127.0.0.1", "localhost"), said=said, patience=5.0, max_retries=9
    )
    with ThreadPoolExecutor(1) as threads:
        reply = threads.submit(client.chat, QUESTION)
        wait_for(lambda: len(said) == 2)
        with stub_server(chat_reply("a"), port=urlsplit(gone.url).port or 0):
            assert reply.result(5).text == "a"


def test_a_question_fails_when_no_server_comes_back() -> None:
    with stub_server() as gone, stub_server() as other:
        pass
    client = pool(gone.url, other.url, max_retries=20)
    with pytest.raises(EndpointError, match=r"none of the 2 servers replies: .*no connection"):
        client.chat(QUESTION)


def test_a_question_that_no_server_takes_is_not_sent_around() -> None:
    said: list[str] = []
    with stub_server(HttpReply({"error": "too long"}, 400)) as one, stub_server(chat_reply("b")) as two:
        with pytest.raises(EndpointError, match="too long"):
            pool(one.url, two.url, said=said).chat(QUESTION)
        assert (len(one.asked), len(two.asked), said) == (1, 0, [])


def test_a_question_that_every_server_fails_on_is_given_up() -> None:
    with stub_server(FAIL) as one, stub_server(FAIL) as two:
        with pytest.raises(EndpointError, match=r"status 500.*\(3 attempts\)"):
            pool(one.url, two.url, max_retries=2).chat(QUESTION)
        assert len(one.asked) + len(two.asked) == 3


def test_a_key_that_every_server_refuses_is_a_wrong_key() -> None:
    with stub_server(HttpReply({}, 401)) as one, stub_server(HttpReply({}, 401)) as two:
        with pytest.raises(EndpointError, match="status 401") as caught:
            pool(one.url, two.url, look=60, patience=60).chat(QUESTION)
        assert caught.value.setup
        assert len(one.asked) + len(two.asked) == 2


def test_a_busy_server_is_not_left_out_and_gets_its_pause() -> None:
    said: list[str] = []
    busy = HttpReply({}, 429, {"Retry-After": "30"})
    with stub_server(busy) as one, stub_server(chat_reply("b")) as two:
        assert ask(pool(one.url, two.url, said=said), 12, threads=1) == ["b"] * 12
        assert (len(one.asked), said) == (1, [])


def test_a_hanging_server_holds_a_question_for_the_time_limit_only() -> None:
    gate = threading.Event()

    def hang(text: str) -> HttpReply:
        gate.wait(5)
        return chat_reply("late")

    with stub_server(by_prompt=hang) as one, stub_server(chat_reply("b")) as two:
        started = time.monotonic()
        assert ask(pool(one.url, two.url, timeout=0.2, look=60), 12) == ["b"] * 12
        assert time.monotonic() - started < 3
        gate.set()


def test_one_address_is_one_endpoint_and_the_same_address_twice_is_one() -> None:
    assert isinstance(open_endpoint(["http://a/v1"] * 2, "tiny"), Endpoint)
    two = open_endpoint(["http://b/v1", "http://a/v1"], "tiny", concurrency=3)
    assert isinstance(two, EndpointPool)
    assert (two.concurrency, two.url) == (6, "http://a/v1/chat/completions, http://b/v1/chat/completions")
    with pytest.raises(EndpointError, match="name a server"):
        open_endpoint([], "tiny")
