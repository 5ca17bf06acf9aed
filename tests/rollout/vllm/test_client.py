"""HTTP client of a vLLM server: kinds of failure, time limits, and its routes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.client import RequestRefused, ServerFailed, VllmClient
from tests.fakes.vllm_server import FakeServer, running

OPTIONS: dict[str, Any] = {
    "temperature": 0.5,
    "max_tokens": 8,
    "stop_token_ids": [7],
    "logit_bias": {5: -100.0},
}
TALK = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    with running(server):
        yield server


def test_a_completion_is_asked_for_with_everything_that_the_server_would_choose_itself(
    server: FakeServer,
) -> None:
    client = VllmClient(server.url)
    client.inspect()
    completion = client.chat(TALK, 11, OPTIONS)
    assert (completion.prompt_ids, completion.token_ids, completion.logprobs) == ([1], [11], [0.0])
    (sent,) = server.asked
    assert sent == {
        "model": "tiny",
        "messages": TALK,
        "seed": 11,
        "n": 1,
        "repetition_penalty": 1.0,
        "logprobs": True,
        "top_logprobs": 0,
        "return_token_ids": True,
        "temperature": 0.5,
        "max_tokens": 8,
        "stop_token_ids": [7],
        "logit_bias": {"5": -100.0},
    }


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
def test_the_address_may_end_with_a_slash_or_the_path_of_the_api(server: FakeServer, suffix: str) -> None:
    VllmClient(server.url + suffix).health()
    assert server.calls == ["health"]


@pytest.mark.parametrize(
    "url",
    [
        "gpu-7:8000",
        "ftp://gpu-7",
        "http://",
        "",
        "http://gpu-7:port",
        "http://gpu-7:99999",
        "http://gpu 7:8000",
        "http://[gpu-7",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="is no address of a server"):
        VllmClient(url)


def test_a_server_that_is_not_there_has_failed(server: FakeServer) -> None:
    server.kill()
    with pytest.raises(ServerFailed, match="cannot be reached") as caught:
        VllmClient(server.url).health()
    assert not caught.value.answered


def test_an_error_of_the_server_is_its_failure_and_one_of_the_request_is_not(server: FakeServer) -> None:
    client = VllmClient(server.url)
    server.status, server.text = 500, json.dumps({"error": {"message": "out of memory", "code": 500}})
    with pytest.raises(ServerFailed, match="500, out of memory") as caught:
        client.chat(TALK, 1, OPTIONS)
    assert caught.value.answered
    server.status, server.text = 400, "too many images"
    with pytest.raises(RequestRefused, match="400, too many images"):
        client.chat(TALK, 1, OPTIONS)


def test_a_server_without_an_answer_in_time_has_failed(server: FakeServer) -> None:
    server.hangs = True
    with pytest.raises(ServerFailed, match="does not answer /v1/chat/completions in time"):
        VllmClient(server.url, timeout=0.2).chat(TALK, 1, OPTIONS)
    server.deaf = True
    with pytest.raises(ServerFailed, match="does not answer /health in time"):
        VllmClient(server.url, patience=0.2).health()


def test_a_server_that_is_killed_or_given_up_ends_the_requests_at_once(server: FakeServer) -> None:
    for end in (VllmClient.abort, lambda client: server.kill()):
        server.hangs = True
        client = VllmClient(server.url)
        threading.Timer(0.2, end, [client]).start()
        started = time.monotonic()
        with pytest.raises(ServerFailed, match="cannot be reached"):
            client.chat(TALK, 1, OPTIONS)
        assert time.monotonic() - started < 5


def test_a_completion_that_the_server_breaks_off_is_none(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = server._chat

    def broken_off(body: Any) -> Any:
        reply = chat(body)
        reply["choices"][0]["finish_reason"] = "abort"
        return reply

    monkeypatch.setattr(server, "_chat", broken_off)
    with pytest.raises(ServerFailed, match="broke off a completion"):
        VllmClient(server.url).chat(TALK, 1, OPTIONS)


def test_a_reply_of_another_server_is_refused(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_chat", lambda body: {"choices": [{"finish_reason": "stop"}]})
    with pytest.raises(RequestRefused, match="none of vLLM's"):
        VllmClient(server.url).chat(TALK, 1, OPTIONS)


@pytest.mark.parametrize("missing", [set(), {"weight_info", "update_weight_version"}])
def test_a_stamp_changes_when_the_server_starts_anew(server: FakeServer, missing: set[str]) -> None:
    server.missing = missing
    client = VllmClient(server.url)
    stamp = client.set_version("mine")
    assert client.stamp() == stamp
    assert (stamp == "version mine") == (not missing)
    server.restart()
    assert client.stamp() != stamp


def test_a_server_that_cannot_tell_whether_it_started_anew_is_refused(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_other", lambda name, body: (200, "# of several processes"))
    server.missing = {"weight_info"}
    with pytest.raises(RequestRefused, match="weight_info"):
        VllmClient(server.url).stamp()


def test_new_weights_are_loaded_and_all_caches_of_the_old_ones_reset(
    server: FakeServer, tmp_path: Path
) -> None:
    save_file({"w": torch.tensor(2.0)}, tmp_path / "model.safetensors")
    VllmClient(server.url).reload(tmp_path)
    caches = ["reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache"]
    assert server.calls == ["collective_rpc", *caches]
    assert server.weights["w"] == 2


def test_a_cache_that_is_not_reset_is_a_failure(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = server._other

    def keeps(name: str, body: Any) -> Any:
        return (200, {"success": False}) if name == "reset_prefix_cache" else other(name, body)

    monkeypatch.setattr(server, "_other", keeps)
    with pytest.raises(ServerFailed, match="did not reset its prefix cache"):
        VllmClient(server.url).reset_caches()


def test_the_key_of_the_environment_is_sent(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "s3cret")
    VllmClient(server.url).health()
    assert server.keys == ["Bearer s3cret"]
