"""vLLM as servers on other GPUs or machines: every process sends requests, the main process the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from mm_cpgd.distributed import on_main
from mm_cpgd.errors import EngineFailed, UserError
from mm_cpgd.rollout.vllm.backend import Request, VideoRequest, VllmCompletion
from mm_cpgd.rollout.vllm.client import Messages, ServerFailed, TokenRequest, VllmClient
from mm_cpgd.rollout.vllm.dispatch import Dispatch
from mm_cpgd.rollout.vllm.pool import (
    START,
    Limits,
    Server,
    ServerPool,
    WeightTransport,
    described,
    everywhere,
    pause,
)
from mm_cpgd.rollout.vllm.server_stream import ServerStream, data_url, encoded

Say = Callable[[str], None]
# How weights get to servers at these addresses, which compute in this number format.
OpenTransport = Callable[[Sequence[str], torch.dtype | None], WeightTransport]
# Seconds between two questions whether a server has started.
STARTING = 2.0


class ServerBackend:
    """vLLM servers that share the prompts.

    Args:
        pool: the servers.
        accelerator: the run's accelerator.
    """

    def __init__(self, pool: ServerPool, accelerator: Accelerator) -> None:
        self.pool = pool
        self.accelerator = accelerator

    @property
    def dtype(self) -> torch.dtype | None:
        """Coarsest number format of the servers; None if one does not say."""
        return _coarsest(self.pool.servers)

    def image_content(self, image: Image.Image) -> dict[str, Any]:
        """See ``VllmBackend.image_content``; PNG, which is lossless."""
        return {"type": "image_url", "image_url": {"url": data_url(image)}}

    def chat(
        self, conversations: Sequence[Request], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[VllmCompletion]:
        """See ``VllmBackend.chat``; without a word to the other processes, so that it may run in a thread.

        Raises:
            EngineFailed: no server answers, or one refuses a request.
            Interrupted: the process was asked to stop meanwhile.
            UserError: a server returns log-probabilities of another distribution than it samples from.
        """
        self._check_distribution(options)
        known: dict[int, TokenRequest] = {}
        requests: list[Messages | TokenRequest] = []
        for one in conversations:
            if isinstance(one, VideoRequest):
                raise UserError("vLLM's servers get no videos; set rollout.vllm.mode=colocated for such rows")
            # Those of one prompt are one object, and stay one.
            requests.append(one if isinstance(one, list) else known.setdefault(id(one), encoded(one)))
        return Dispatch(self.pool, requests, seeds, options).run()

    @contextmanager
    def stream(self, options: Mapping[str, Any]) -> Iterator[ServerStream]:
        """See ``VllmBackend.stream``; errors as ``chat``."""
        self._check_distribution(options)
        opened = ServerStream(self.pool, options)
        try:
            yield opened
        finally:
            opened.close()

    def _check_distribution(self, options: Mapping[str, Any]) -> None:
        if _changes_distribution(options):
            self.pool.processed = True
            self._check_mode()

    def _check_mode(self) -> None:
        for server in self.pool.servers:
            try:
                self.pool.check(server)
            except ServerFailed as error:
                raise UserError(f"the vLLM server {server.url} {error}") from error

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See ``VllmBackend.load``; returns on all processes once the servers have the weights.

        Raises:
            EngineFailed: no server takes them, or they cannot be written.
        """
        self.accelerator.wait_for_everyone()  # a request of another process may still be open
        problem = self._store(weights)
        version, stamps = on_main(self.accelerator, lambda: self._publish(problem))
        if not self.accelerator.is_main_process:
            self.pool.adopt(version, stamps, {})

    def _store(self, weights: Iterable[tuple[str, Tensor]]) -> Exception | None:
        """Go through the weights to the end, whatever happens: those of shards are gathered by all."""
        problem: Exception | None = None
        stream = iter(weights)
        if self.accelerator.is_main_process:
            try:
                self.pool.transport.store(stream)
            except (OSError, SafetensorError, UserError) as error:
                problem = error
        for _ in stream:
            pass
        return problem

    def _publish(self, problem: Exception | None) -> tuple[str, dict[str, str]]:
        if isinstance(problem, UserError):
            raise problem
        if problem is not None:
            raise EngineFailed(f"the weights for vLLM cannot be written: {problem}")
        stamps = self.pool.publish()
        self.pool.transport.clean()
        return self.pool.version, stamps

    def close(self) -> None:
        """End open requests, and remove the weights that were written for the servers."""
        self.pool.close()
        if self.accelerator.is_main_process:
            self.pool.transport.remove()


def _changes_distribution(options: Mapping[str, Any]) -> bool:
    """Return whether the sampling distribution differs from the model's."""
    cuts = options["top_p"] < 1 or options["top_k"] > 0 or options["min_p"] > 0
    return bool(options["temperature"] > 0 and (cuts or options["temperature"] != 1))


def _coarsest(servers: Sequence[Server]) -> torch.dtype | None:
    found = [getattr(torch, server.client.dtype or "-", None) for server in servers]
    known = [one for one in found if isinstance(one, torch.dtype)]
    return max(known, key=lambda one: torch.finfo(one).eps) if len(known) == len(found) else None


def open_servers(
    urls: Sequence[str],
    open_transport: OpenTransport,
    accelerator: Accelerator,
    limits: Limits,
    *,
    timeout: float = 1800.0,
    load_timeout: float | None = None,
    say: Say = lambda text: None,
) -> ServerBackend:
    """Connect to servers; called on all processes.

    Args:
        urls: their addresses, without ``/v1``.
        open_transport: see there.
        accelerator: the run's accelerator.
        limits: ``wait`` is also the time for servers that are still starting.
        timeout: see ``VllmClient``.
        load_timeout: likewise.
        say: prints a line about a server that is left out or comes back.

    Raises:
        UserError: no server responds, or one was started without the routes for weights.
    """
    clients = [VllmClient(url, timeout, load_timeout=load_timeout) for url in urls]
    # The same server may be named twice, with and without a slash.
    servers = [Server(client) for client in {client.url: client for client in clients}.values()]
    found = on_main(accelerator, lambda: _inspect(servers, limits.wait))
    for server, known in zip(servers, found, strict=True):
        server.client.model, server.client.dtype, server.client.logprobs_mode = known
    transport = open_transport([server.url for server in servers], _coarsest(servers))
    # Every process begins with another server.
    for place, server in enumerate(servers):
        server.given = (place - accelerator.process_index) % len(servers)
    return ServerBackend(ServerPool(servers, transport, limits, say), accelerator)


def _inspect(servers: Sequence[Server], seconds: float) -> list[tuple[str, str, str]]:
    """Wait for all servers; return what they are, nothing of those that have not started by then."""
    deadline = time.monotonic() + seconds
    while True:
        outcomes = everywhere(servers, lambda server: server.client.inspect())
        failures = {url: one for url, one in outcomes.items() if isinstance(one, ServerFailed)}
        if not failures or time.monotonic() > deadline:
            break
        pause(min(STARTING, seconds))
    if len(failures) == len(servers):
        raise UserError(f"no vLLM server responds: {described(failures)}; {START}")
    clients = [server.client for server in servers]
    return [(client.model, client.dtype, client.logprobs_mode) for client in clients]
