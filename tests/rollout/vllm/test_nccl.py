"""Weights over NCCL, on a fake of TRL's client with its signatures."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from trl.generation.vllm_client import VLLMClient

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.client import ServerFailed, VllmClient
from mm_cpgd.rollout.vllm.nccl import NcclTransfer, connect_trl
from tests.fakes.vllm_server import FakeServer, running

URLS = ["http://a:1", "http://b:2"]


class Trainer:
    """TRL's client as far as weights go through it; every call must match the real signature."""

    def __init__(self, url: str, port: int) -> None:
        self.url, self.port = url, port
        self.calls: list[Any] = []
        self.weights: dict[str, float] = {}
        self.fails = False

    def _bind(self, name: str, *args: Any, **options: Any) -> dict[str, Any]:
        self.calls.append(name)
        if self.fails:
            raise Exception("Request failed: 500, out of memory")
        return inspect.signature(getattr(VLLMClient, name)).bind(self, *args, **options).arguments

    def init_communicator(self, *args: Any, **options: Any) -> None:
        self._bind("init_communicator", *args, **options)

    def close_communicator(self) -> None:
        self.calls.append("close_communicator")

    @contextmanager
    def weight_update(self) -> Iterator[None]:
        self._bind("weight_update")
        try:
            yield
        finally:
            self.calls.append("finish")

    def update_named_params(self, *args: Any, **options: Any) -> None:
        given = self._bind("update_named_params", *args, **options)
        sent = list(given["named_params"])
        assert given["metadata"] == [
            (name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in sent
        ]
        self.weights |= {name: float(value.flatten()[0]) for name, value in sent}


@pytest.fixture
def trainers() -> list[Trainer]:
    return []


@pytest.fixture
def transfer(trainers: list[Trainer]) -> NcclTransfer:
    def connect(url: str, port: int) -> Trainer:
        trainers.append(Trainer(url, port))
        return trainers[-1]

    return NcclTransfer(URLS, 500, torch.device("cpu"), connect, bucket_bytes=800)


def weights(count: int) -> Iterator[tuple[str, torch.Tensor]]:
    return ((f"w{i}", torch.full((100,), float(i))) for i in range(count))


def test_weights_are_streamed_in_buckets_within_one_update(
    transfer: NcclTransfer, trainers: list[Trainer]
) -> None:
    transfer.store(weights(5))
    assert [trainer.port for trainer in trainers] == [500, 501]
    for trainer in trainers:
        updates = ["update_named_params"] * 3
        assert trainer.calls == ["init_communicator", "weight_update", *updates, "finish"]
        assert trainer.weights == {f"w{i}": float(i) for i in range(5)}


def test_a_server_is_connected_once(transfer: NcclTransfer, trainers: list[Trainer]) -> None:
    for _ in range(2):
        transfer.store(weights(1))
    assert [trainer.calls.count("init_communicator") for trainer in trainers] == [1, 1]
    transfer.remove()
    assert [trainer.calls[-1] for trainer in trainers] == ["close_communicator"] * 2


def test_a_server_that_fails_is_left_out_and_connected_anew_for_the_next_update(
    transfer: NcclTransfer, trainers: list[Trainer]
) -> None:
    transfer.store(weights(1))
    trainers[0].fails = True
    transfer.store(weights(3))
    assert trainers[1].weights["w2"] == 2
    with pytest.raises(ServerFailed, match=r"did not take the weights .*out of memory"):
        transfer.send(VllmClient(URLS[0]), transfer.version)
    transfer.store(weights(3))
    assert [trainer.url for trainer in trainers] == [*URLS, URLS[0]]
    assert trainers[2].weights["w2"] == 2


def test_all_weights_are_gone_through_even_if_no_server_takes_them(
    transfer: NcclTransfer, trainers: list[Trainer]
) -> None:
    transfer.store(weights(1))
    for trainer in trainers:
        trainer.fails = True
    stream = weights(5)
    transfer.store(stream)
    assert list(stream) == []


def test_an_update_is_completed_by_resetting_the_caches_and_a_version() -> None:
    server = FakeServer()
    with running(server):
        transfer = NcclTransfer([server.url], 500, torch.device("cpu"), Trainer)
        transfer.store(weights(1))
        stamp = transfer.send(VllmClient(server.url), transfer.version)
        assert stamp == f"version {server.version}"
        assert server.version.startswith(f"{transfer.version}/")
        assert [call for call in server.calls if call.startswith("reset")] == [
            "reset_prefix_cache",
            "reset_mm_cache",
            "reset_encoder_cache",
        ]


def test_without_vllm_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl.generation.vllm_client", None)
    with pytest.raises(UserError, match=r"pip install 'mm-cpgd\[vllm\]'"):
        NcclTransfer(URLS, 500, torch.device("cpu"), connect_trl).store(weights(1))
