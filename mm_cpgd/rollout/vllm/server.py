"""vLLM as a server on other GPUs.

The server's protocol and the transfer of weights over NCCL are those of ``trl.generation.vllm_client``, which
follows vLLM's changes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.rollout.vllm.backend import MISSING, VllmCompletion


class ServerBackend:
    """A ``vllm serve`` on other GPUs. Every process sends requests; the main process sends the weights.

    Args:
        client: a ``trl.generation.vllm_client.VLLMClient``.
        accelerator: the run's accelerator.
        requests: concurrent requests of this process.
    """

    def __init__(self, client: Any, accelerator: Accelerator, requests: int = 64) -> None:
        self.client = client
        self.accelerator = accelerator
        self.requests = requests
        self._connected = False
        self._mode_checked = False

    def image_content(self, image: Image.Image) -> dict[str, Any]:
        """See ``VllmBackend.image_content``; PNG, which is lossless."""
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}

    def chat(
        self, conversations: Sequence[list[dict[str, Any]]], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[VllmCompletion]:
        """See ``VllmBackend.chat``.

        Raises:
            RunEnded: the server fails.
            UserError: it returns log-probabilities of another distribution than the one it samples from.
        """
        named = ("temperature", "top_p", "top_k", "min_p", "max_tokens")
        extra = {name: value for name, value in options.items() if name not in named}
        # Keys of JSON objects are strings.
        extra["logit_bias"] = {str(token): bias for token, bias in options["logit_bias"].items()}

        def sample(conversation: list[dict[str, Any]], seed: int) -> VllmCompletion:
            reply = self.client.chat(
                [conversation],
                logprobs=0,
                generation_kwargs={**extra, "seed": seed},
                **{name: options[name] for name in named},
            )
            logprobs = [of_token[0] for of_token in reply["logprobs"][0]]
            return VllmCompletion(reply["prompt_ids"][0], reply["completion_ids"][0], logprobs)

        if conversations and not self._mode_checked and _changes_distribution(options):
            self._check_mode(conversations[0], {**options, "logit_bias": extra["logit_bias"]})
        with _server_errors(self.client), ThreadPoolExecutor(self.requests) as threads:
            return list(threads.map(sample, conversations, seeds))

    def _check_mode(self, conversation: list[dict[str, Any]], options: Mapping[str, Any]) -> None:
        """Raise unless the server returns log-probabilities after temperature and cuts.

        Of a single kept token this is 0; of the same token before the cut it is not.
        """
        bias = {"logit_bias": options["logit_bias"], "seed": 0}
        with _server_errors(self.client):
            reply = self.client.chat(
                [conversation], logprobs=0, temperature=1.0, top_k=1, max_tokens=1, generation_kwargs=bias
            )
        value = reply["logprobs"][0][0][0]
        if value is not None and value < -1e-3:
            raise UserError(
                f"the vLLM server {self.client.base_url} returns raw log-probabilities, but with this "
                "rollout.temperature, top_p, top_k or min_p it samples from another distribution; start it "
                "with --logprobs-mode processed_logprobs"
            )
        self._mode_checked = True

    def close(self) -> None:
        """Leave the server as it is."""

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See ``VllmBackend.load``; returns on all processes once the server has the weights.

        Raises:
            RunEnded: the server fails.
        """
        if self.accelerator.is_main_process:
            with _server_errors(self.client):
                self._send(list(weights))
        self.accelerator.wait_for_everyone()

    def _send(self, weights: Sequence[tuple[str, Tensor]]) -> None:
        if not self._connected:
            self.client.init_communicator(device=self.accelerator.device)
            self._connected = True
        metadata = [
            (name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in weights
        ]
        device = self.accelerator.device
        self.client.update_named_params(metadata, ((name, value.to(device)) for name, value in weights))
        self.client.reset_prefix_cache()


def _changes_distribution(options: Mapping[str, Any]) -> bool:
    """Return whether the sampling distribution differs from the model's."""
    cuts = options["top_p"] < 1 or options["top_k"] > 0 or options["min_p"] > 0
    return options["temperature"] > 0 and (cuts or options["temperature"] != 1)


@contextmanager
def _server_errors(client: Any) -> Iterator[None]:
    """Turn exceptions of the client into ``RunEnded``; the run's checkpoints are not affected."""
    try:
        yield
    except Exception as error:  # the client raises bare ``Exception``
        raise RunEnded(
            f"the vLLM server {client.base_url} failed: {str(error)[:500]}; fix the server, then run the "
            "same command with --resume"
        ) from error


def open_server(
    url: str, accelerator: Accelerator, *, weights_port: int = 51216, wait: float = 240.0, requests: int = 64
) -> ServerBackend:
    """Connect to a running server.

    Args:
        url: the server's address, without ``/v1``.
        accelerator: the run's accelerator.
        weights_port: port of the main process over which weights are sent.
        wait: seconds to wait for the server to start.
        requests: see ``ServerBackend``.

    Raises:
        UserError: vLLM is not installed here (its NCCL transfer is needed), or the server does not respond.
    """
    try:
        from trl.generation.vllm_client import VLLMClient

        client = VLLMClient(base_url=url, group_port=weights_port, connection_timeout=wait)
    except ImportError as error:
        raise UserError(MISSING) from error
    except Exception as error:  # the client also raises bare ``Exception``
        raise UserError(
            f"rollout.vllm.url={url!r}: no vLLM server responds there ({str(error)[:300]}); start it as "
            "described in docs/vllm.md"
        ) from error
    return ServerBackend(client, accelerator, requests)
