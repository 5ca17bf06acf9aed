"""Backends of the vLLM engine: vLLM in this process, or as a server on other GPUs.

Written against the public interfaces of vLLM 0.22 to 0.31. The server's protocol and the transfer of weights
over NCCL are those of ``trl.generation.vllm_client``, which follows vLLM's changes.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.rollout.vllm import VllmCompletion

MISSING = (
    "rollout.engine=vllm needs vLLM: pip install 'mm-cpgd[vllm]' (Linux with a GPU), or set "
    "rollout.engine=local"
)


class ColocatedBackend:
    """vLLM in the training process, on the same GPU; every process has its own.

    Args:
        llm: a ``vllm.LLM``.
        make_params: ``vllm.SamplingParams``.
        sleep: whether vLLM releases its GPU memory while the policy is updated: weights are moved to CPU
            memory, the key-value cache is dropped.
    """

    def __init__(self, llm: Any, make_params: Any, sleep: bool = False) -> None:
        self.llm = llm
        self.make_params = make_params
        self.sleep = sleep
        self._asleep: set[str] = set()
        self._sleep()

    def image_content(self, image: Image.Image) -> dict[str, Any]:
        """See ``VllmBackend.image_content``."""
        return {"type": "image_pil", "image_pil": image}

    def chat(
        self, conversations: Sequence[list[dict[str, Any]]], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[VllmCompletion]:
        """See ``VllmBackend.chat``."""
        params = [self.make_params(**options, seed=seed, logprobs=0, detokenize=False) for seed in seeds]
        self._wake("weights", "kv_cache")
        # The trainer's autocast must not apply to vLLM.
        with torch.autocast("cuda", enabled=False):
            outputs = self.llm.chat(list(conversations), sampling_params=params, use_tqdm=False)
        self._sleep()
        return [_completion(output) for output in outputs]

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See ``VllmBackend.load``."""
        self._wake("weights")

        def load(model: Any) -> None:
            model.load_weights(weights)

        self.llm.apply_model(load)
        self.llm.reset_prefix_cache()

    def _wake(self, *tags: str) -> None:
        needed = [tag for tag in tags if tag in self._asleep]
        if needed:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.llm.wake_up(tags=needed)
            self._asleep -= set(needed)

    def _sleep(self) -> None:
        if self.sleep:
            self.llm.sleep(level=1)
            self._asleep = {"weights", "kv_cache"}


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


def _completion(result: Any) -> VllmCompletion:
    """Convert a ``vllm.RequestOutput`` with one completion."""
    output = result.outputs[0]
    pairs = zip(output.token_ids, output.logprobs, strict=True)
    logprobs = [by_token[token].logprob for token, by_token in pairs]
    return VllmCompletion(result.prompt_token_ids, list(output.token_ids), logprobs)


def open_colocated(
    model: str,
    *,
    processes: int = 1,
    seed: int = 0,
    memory_share: float = 0.3,
    max_model_len: int | None = None,
    sleep: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    image_limits: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ColocatedBackend:
    """Start vLLM in this process.

    Args:
        model: hub name or folder.
        processes: the run's number of processes; each starts its own vLLM on its own GPU.
        seed: seed of this process's vLLM; completions have their own seeds.
        memory_share: share of the GPU's memory for weights and key-value cache.
        max_model_len: most tokens of prompt and completion together; None: the model's own limit.
        sleep: see ``ColocatedBackend``.
        trust_remote_code: as for the policy.
        revision: revision of the model on the hub.
        image_limits: ``min_pixels`` and ``max_pixels``, as for the policy.
        options: further arguments of ``vllm.LLM``; they take precedence.

    Raises:
        UserError: vLLM is not installed or does not start.
    """
    # Weights are passed as tensors without copying, which requires vLLM in this very process.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM, SamplingParams
    except ImportError as error:
        raise UserError(MISSING) from error
    settings: dict[str, Any] = {
        "model": model,
        "revision": revision,
        "seed": seed,
        "gpu_memory_utilization": memory_share,
        "max_model_len": max_model_len,
        "enable_prefix_caching": True,
        "enable_sleep_mode": sleep,
        "logprobs_mode": "processed_logprobs",
        "trust_remote_code": trust_remote_code,
    }
    if image_limits:
        settings["mm_processor_kwargs"] = dict(image_limits)
    if processes > 1:
        # vLLM uses the rank and device that the launcher gave this process and starts no processes itself.
        settings["distributed_executor_backend"] = "external_launcher"
    try:
        llm = LLM(**{**settings, **(options or {})})
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(f"vLLM does not start with {model}: {str(error)[:500]}") from error
    return ColocatedBackend(llm, SamplingParams, sleep)


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
