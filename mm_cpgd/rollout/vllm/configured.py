"""The vLLM engine that a run's config describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from accelerate import Accelerator

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.rollout.vllm.client import check_address
from mm_cpgd.rollout.vllm.colocated import open_colocated
from mm_cpgd.rollout.vllm.engine import VllmEngine
from mm_cpgd.rollout.vllm.nccl import NcclTransfer
from mm_cpgd.rollout.vllm.pool import Limits, WeightTransport
from mm_cpgd.rollout.vllm.server import ServerBackend, open_servers
from mm_cpgd.rollout.vllm.weights_folder import WeightsFolder, tied_names

# Share of ``distributed.timeout`` that servers may take to load weights: the other processes wait meanwhile,
# and a server that hangs has to be left out before they give up.
LOAD_SHARE = 0.8


def build_vllm_engine(
    config: RunConfig, accelerator: Accelerator, policy: Policy, say: Callable[[str], None]
) -> VllmEngine:
    """Return the engine; ``say`` prints a line about a server that fails.

    Raises:
        UserError: vLLM is not installed or cannot be reached.
    """
    chosen, loaded = config.rollout.vllm, config.policy
    if chosen.mode == "server":
        return VllmEngine(policy, build_servers(config, accelerator, policy, say))
    limits = {"min_pixels": loaded.min_pixels, "max_pixels": loaded.max_pixels}
    only_adapters = loaded.lora is not None and chosen.adapters == "adapter"
    colocated = open_colocated(
        policy.model.name_or_path,
        processes=accelerator.num_processes,
        tensor_parallel=chosen.tensor_parallel,
        seed=config.seed,
        memory_share=chosen.memory_share,
        max_model_len=chosen.max_model_len,
        sleep=chosen.sleep,
        trust_remote_code=loaded.trust_remote_code,
        revision=loaded.revision,
        image_limits={name: value for name, value in limits.items() if value},
        adapter_rank=loaded.lora.rank if loaded.lora and only_adapters else None,
        options=chosen.options,
    )
    return VllmEngine(policy, colocated, colocated if only_adapters else None)


def build_servers(
    config: RunConfig, accelerator: Accelerator, policy: Policy, say: Callable[[str], None]
) -> ServerBackend:
    """Return the connection to the configured vLLM servers.

    Raises:
        UserError: none responds, or as ``check_servers``.
    """
    chosen = config.rollout.vllm
    urls = check_servers(config)

    def open_transport(urls: Sequence[str], dtype: torch.dtype | None) -> WeightTransport:
        if chosen.weights == "nccl":
            return NcclTransfer(urls, chosen.weights_port, accelerator.device)
        return WeightsFolder(_weights_folder(config), tied_names(policy.model), dtype)

    return open_servers(
        urls,
        open_transport,
        accelerator,
        Limits(chosen.requests, chosen.wait),
        timeout=chosen.timeout,
        load_timeout=min(chosen.timeout, LOAD_SHARE * config.distributed.timeout),
        say=say,
    )


def _weights_folder(config: RunConfig) -> Path:
    """Return where weights for servers are written; runs that name one folder have one each in it."""
    root = config.rollout.vllm.weights_folder
    if root is None:
        return config.folder / "weights"
    return root / f"run-{sha256(str(config.folder.resolve()).encode()).hexdigest()[:12]}"


def check_adapters(config: RunConfig) -> None:
    """Refuse adapters that vLLM cannot apply apart from their weights.

    Raises:
        UserError: they are DoRA's, or also on the vision tower.
    """
    lora = config.policy.lora
    if lora is None or config.rollout.vllm.adapters == "merged":
        return
    for key in ("dora", "vision"):
        if getattr(lora, key):
            raise UserError(
                f"rollout.vllm.adapters=adapter: vLLM does not apply adapters with policy.lora.{key}=true; "
                "set rollout.vllm.adapters=merged"
            )


def check_servers(config: RunConfig) -> list[str]:
    """Return the addresses of the vLLM servers.

    Raises:
        UserError: one is no address, ``url`` and ``urls`` are given, or the adapters shall be sent alone.
    """
    chosen = config.rollout.vllm
    if chosen.urls and chosen.url != type(chosen).model_fields["url"].default:
        raise UserError("rollout.vllm.url and rollout.vllm.urls are both given: name all servers in urls")
    urls = chosen.urls or [chosen.url]
    for url in urls:
        check_address(url)
    if config.policy.lora is not None and chosen.adapters == "adapter":
        raise UserError(
            "rollout.vllm.adapters=adapter needs rollout.vllm.mode=colocated; servers get merged weights: "
            "set rollout.vllm.adapters=merged"
        )
    return urls
