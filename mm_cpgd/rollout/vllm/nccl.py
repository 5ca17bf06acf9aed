"""Weights that reach vLLM servers over NCCL, by the client that TRL maintains for vLLM."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.backend import MISSING
from mm_cpgd.rollout.vllm.client import ServerFailed, VllmClient
from mm_cpgd.rollout.vllm.weights_folder import FILE_BYTES, in_buckets

Connect = Callable[[str, int], Any]


class NcclTransfer:
    """Streams weights to servers in buckets.

    A server that starts anew gets weights with the next update only: to send them, all training processes
    have to take part.

    Args:
        urls: the servers; the n-th uses the n-th port.
        port: the main process's first port.
        device: the main process's device.
        connect: opens a ``trl.generation.vllm_client.VLLMClient`` for an address and a port.
        bucket_bytes: weights that are held on the device at a time.
    """

    resends = False

    def __init__(
        self,
        urls: Sequence[str],
        port: int,
        device: torch.device,
        connect: Connect | None = None,
        bucket_bytes: int = FILE_BYTES,
    ) -> None:
        self.ports = {url: port + place for place, url in enumerate(urls)}
        self.device = device
        self.connect = connect or connect_trl
        self.bucket_bytes = bucket_bytes
        self._owner = uuid.uuid4().hex[:8]
        self._count = 0
        self._clients: dict[str, Any] = {}
        self._failed: dict[str, str] = {}

    @property
    def version(self) -> str:
        """Name of the newest weights, different for every run and every update."""
        return f"{self._owner}-{self._count}"

    def store(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Stream weights to all servers that can be reached; for the others ``send`` fails."""
        self._count += 1
        self._failed = {}
        for url in self.ports:
            self._attempt(url, partial(self._connect, url))
        updates = {url: client.weight_update() for url, client in self._clients.items()}
        for url, update in updates.items():
            self._attempt(url, update.__enter__)
        for bucket in in_buckets(weights, self.bucket_bytes):
            sent = [(name, value.to(self.device)) for name, value in bucket]
            announced = [
                (name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in sent
            ]
            for url in updates:
                self._attempt(url, partial(self._clients[url].update_named_params, announced, iter(sent)))
        for url, update in updates.items():
            self._attempt(url, partial(update.__exit__, None, None, None), anyway=True)
        for url in self._failed:
            self._disconnect(url)

    def send(self, client: VllmClient, version: str) -> str:
        """Complete the update of a server; return its stamp from then on."""
        if client.url in self._failed:
            raise ServerFailed(self._failed[client.url])
        client.reset_caches()
        return client.set_version(f"{version}/{uuid.uuid4().hex[:8]}")

    def clean(self) -> None:
        """Nothing to remove."""

    def remove(self) -> None:
        """End the connections."""
        for url in list(self._clients):
            self._disconnect(url)

    def _connect(self, url: str) -> None:
        if url not in self._clients:
            client = self.connect(url, self.ports[url])
            client.init_communicator(device=self.device)
            self._clients[url] = client

    def _disconnect(self, url: str) -> None:
        client = self._clients.pop(url, None)
        if client is not None:
            client.close_communicator()

    def _attempt(self, url: str, work: Callable[[], Any], *, anyway: bool = False) -> None:
        """Do something with a server unless it has failed before; note if it fails now."""
        if url in self._failed and not anyway:
            return
        try:
            work()
        except UserError:
            raise
        except Exception as error:  # the client raises bare ``Exception``
            self._failed.setdefault(url, f"did not take the weights ({str(error)[:300]})")


def connect_trl(url: str, port: int) -> Any:
    """Return TRL's client of a server, which has NCCL's part of the protocol.

    Raises:
        UserError: vLLM is not installed here.
    """
    try:
        from trl.generation.vllm_client import VLLMClient

        return VLLMClient(base_url=url, group_port=port)
    except ImportError as error:
        raise UserError(MISSING) from error
