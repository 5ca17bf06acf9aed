"""Requests shared by servers that are slow, die, hang, fail, and come back with other weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mm_cpgd.errors import EngineFailed
from mm_cpgd.interrupt import Interrupted
from mm_cpgd.rollout.vllm.pool import Limits
from mm_cpgd.rollout.vllm.server import ServerBackend
from tests.fakes.vllm_server import FIRST, FakeServer, connected, running

OPTIONS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "max_tokens": 4,
    "logit_bias": {},
}
Two = tuple[FakeServer, FakeServer]


@pytest.fixture
def servers() -> Iterator[Two]:
    pair = (FakeServer(), FakeServer())
    with running(*pair):
        yield pair


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def connect(tmp_path: Path, said: list[str]) -> Callable[..., ServerBackend]:
    """Connect to servers that have got the weights ``w`` = 1."""

    def call(*servers: FakeServer, **options: Any) -> ServerBackend:
        backend = connected(*servers, folder=tmp_path / "weights", say=said.append, **options)
        backend.load([("w", torch.tensor(1.0))])
        return backend

    return call


def prompts(count: int, completions: int) -> tuple[list[Any], list[int]]:
    """Return conversations and seeds of ``count`` prompts; a seed tells prompt and completion."""
    talks = [[{"role": "user", "content": f"prompt {p}"}] for p in range(count)]
    return (
        [talk for talk in talks for _ in range(completions)],
        [100 * p + k for p in range(count) for k in range(completions)],
    )


def sample(backend: ServerBackend, count: int = 6, completions: int = 3) -> None:
    """Sample, and check that every completion is there, in order, by the present weights."""
    conversations, seeds = prompts(count, completions)
    sampled = backend.chat(conversations, seeds, OPTIONS)
    assert [one.token_ids for one in sampled] == [[seed] for seed in seeds]
    assert {one.logprobs[0] for one in sampled} == {1.0}


def when_asked(server: FakeServer, number: int, action: Callable[[], None]) -> None:
    """Do something at a server's n-th request for a completion, in a thread of its own."""
    count = 0

    def before(name: str) -> None:
        nonlocal count
        count += name == "v1/chat/completions"
        if name == "v1/chat/completions" and count == number:
            thread = threading.Thread(target=action, daemon=True)
            thread.start()
            thread.join()

    server.before = before


def test_the_completions_of_a_prompt_come_from_one_server(servers: Two, connect: Any) -> None:
    sample(connect(*servers))
    places = [{body["seed"] // 100 for body in server.asked} for server in servers]
    assert not places[0] & places[1]
    assert places[0] | places[1] == set(range(6))


def test_prompts_go_to_the_server_with_the_fewest_open_requests(servers: Two, connect: Any) -> None:
    servers[0].delay = 0.15
    sample(connect(*servers), count=12)
    slow, fast = (len(server.asked) for server in servers)
    assert slow < 18 < fast


def test_no_server_gets_more_requests_at_a_time_than_allowed(servers: Two, connect: Any) -> None:
    for server in servers:
        server.delay = 0.03
    sample(connect(*servers, limits=Limits(requests=2, wait=5, look=5)), count=8)
    assert [server.most_open for server in servers] == [2, 2]


def test_without_prompts_no_server_is_asked(servers: Two, connect: Any) -> None:
    assert connect(*servers).chat([], [], OPTIONS) == []
    assert not servers[0].asked


def test_prompts_before_weights_are_a_mistake(servers: Two, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights before prompts"):
        connected(*servers, folder=tmp_path).chat(*prompts(1, 1), OPTIONS)


@pytest.mark.parametrize("number", [1, 4, 7])
def test_the_requests_of_a_server_that_is_killed_go_to_the_other(
    servers: Two, connect: Any, said: list[str], number: int
) -> None:
    backend = connect(*servers)
    servers[1].delay = 0.1  # so that the other is asked often enough
    when_asked(servers[0], number, servers[0].kill)
    sample(backend)
    assert len(said) == 1
    assert said[0].startswith(f"warning: the vLLM server {servers[0].url} cannot be reached")
    assert said[0].endswith("its prompts go to the other 1")
    sample(backend)
    assert len(said) == 1


def test_a_server_that_hangs_is_left_out_when_its_time_is_over(
    servers: Two, connect: Any, said: list[str]
) -> None:
    servers[0].hangs = True
    sample(connect(*servers, timeout=0.5))
    assert "does not answer /v1/chat/completions in time" in said[0]


def test_a_server_that_does_not_say_how_it_is_is_left_out_before_its_requests_time_out(
    servers: Two, connect: Any, said: list[str]
) -> None:
    backend = connect(*servers)
    backend.pool.servers[0].client.patience = 0.3

    def fall_silent() -> None:
        servers[0].deaf = servers[0].hangs = True

    servers[1].delay = 0.1
    when_asked(servers[0], 2, fall_silent)
    sample(backend)
    assert "does not answer /health in time" in said[0]


def test_a_server_that_fails_once_is_asked_again_and_its_answers_count(
    servers: Two, connect: Any, said: list[str]
) -> None:
    server, backend = servers[0], connect(servers[0])

    def fail_once() -> None:
        server.status = 500
        server.before = lambda name: setattr(server, "status", 200 if name == "health" else server.status)

    when_asked(server, 5, fail_once)
    sample(backend)
    assert [line.split(server.url)[1].split(";")[0].split(":")[0] for line in said] == [
        " fails at /v1/chat/completions",
        " answers again and has the current weights",
    ]
    # Only what was in progress was asked for again.
    assert len(server.asked) <= 18 + 4


def test_a_server_that_comes_back_gets_the_weights_before_prompts(
    servers: Two, connect: Any, said: list[str]
) -> None:
    server, backend = servers[0], connect(*servers)
    servers[1].delay = 0.1
    when_asked(server, 3, server.restart)
    sample(backend, count=10)
    assert [line for line in said if "has the current weights" in line]
    assert float(server.weights["w"]) == 1
    assert server.version != FIRST
    assert len(server.asked) > 3


def test_a_server_that_starts_anew_between_two_requests_never_counts_with_its_first_weights(
    servers: Two, connect: Any, said: list[str]
) -> None:
    server = servers[0]
    backend = connect(server, limits=Limits(requests=1, wait=5, look=60))

    def start_anew() -> None:  # between two requests, so that none of them fails
        server.weights, server.version = {}, FIRST

    when_asked(server, 5, start_anew)
    sample(backend)
    assert "has started anew" in said[0]


def test_weights_of_another_run_are_noticed(servers: Two, connect: Any, said: list[str]) -> None:
    server, backend = servers[0], connect(servers[0])

    def take_over() -> None:
        server.version, server.weights = "another run's", {"w": torch.tensor(5.0)}

    when_asked(server, 4, take_over)
    sample(backend)
    assert "has got weights from elsewhere" in said[0]


def test_weights_that_another_process_has_sent_again_are_not_sent_twice(
    servers: Two, connect: Any, tmp_path: Path
) -> None:
    first = connect(*servers)
    second = connected(*servers, folder=tmp_path / "weights")
    stamps = {server.url: str(server.stamp) for server in first.pool.servers}
    second.pool.adopt(first.pool.version, stamps, {})
    servers[0].restart()
    sample(first)  # sends them to the restarted server, under a new stamp
    loaded = servers[0].calls.count("collective_rpc")
    sample(second)
    assert servers[0].calls.count("collective_rpc") == loaded == 2


@pytest.mark.parametrize("route", ["collective_rpc", "reset_prefix_cache"])
def test_a_server_that_failed_to_take_the_weights_gets_them_again_before_prompts(
    servers: Two, connect: Any, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    server, backend = servers[0], connect(*servers)
    reply, failed = server._other, [0]

    def fail_once(name: str, body: Any) -> tuple[int, Any]:
        if name == route and not failed[0]:
            failed[0] += 1
            return 500, {"error": {"message": "busy"}}
        return reply(name, body)

    monkeypatch.setattr(server, "_other", fail_once)
    backend.load([("w", torch.tensor(1.0))])
    server.calls.clear()
    sample(backend, count=12)
    assert failed == [1]
    assert {"collective_rpc", "reset_prefix_cache"} <= set(server.calls)


def test_when_no_server_is_left_the_run_waits_for_one(servers: Two, connect: Any, said: list[str]) -> None:
    server, backend = servers[0], connect(servers[0], limits=Limits(requests=4, wait=20, look=0.2))
    when_asked(server, 3, lambda: (server.kill(), threading.Timer(0.6, server.start).start()))  # type: ignore[func-returns-value]
    sample(backend)
    assert "waiting up to 20 s for it" in said[0]


def test_when_none_comes_back_in_time_the_run_ends_with_the_reasons(servers: Two, connect: Any) -> None:
    backend = connect(*servers, limits=Limits(requests=4, wait=0.5, look=0.1))
    for server in servers:
        server.kill()
    started = time.monotonic()
    with pytest.raises(
        EngineFailed, match=r"no vLLM server has answered for 0\.5 s .*cannot be reached.*; .*"
    ):
        sample(backend)
    assert time.monotonic() - started < 5


def test_a_request_that_fails_again_and_again_ends_the_run(servers: Two, connect: Any) -> None:
    backend = connect(*servers)
    for server in servers:
        server.status, server.text = 500, "poison"
    with pytest.raises(EngineFailed, match=r"a request has failed 5 times.*500, poison"):
        sample(backend, count=1, completions=1)


def test_a_request_that_is_refused_ends_the_run(servers: Two, connect: Any) -> None:
    backend = connect(*servers)
    for server in servers:
        server.status, server.text = 400, "too many images"
    with pytest.raises(EngineFailed, match="refuses a request: 400, too many images"):
        sample(backend)


def test_an_interrupted_process_ends_its_requests_at_once(
    servers: Two, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = connect(*servers)
    for server in servers:
        server.hangs = True
    requested = threading.Event()
    monkeypatch.setattr("mm_cpgd.rollout.vllm.pool.requested", requested.is_set)
    threading.Timer(0.3, requested.set).start()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        sample(backend)
    assert time.monotonic() - started < 3
    assert not [one for one in threading.enumerate() if one.name.startswith("vllm_")]
