"""The connection to vLLM servers that a config describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.rollout.vllm.configured import build_servers, check_servers
from mm_cpgd.training.setup import build_run_objective, check_sampling
from tests.fakes.vllm_server import FakeServer
from tests.paths import ROOT


def config_with(output: Path, lora: str = "null", **vllm: Any) -> RunConfig:
    mode = json.dumps({"mode": "server", **vllm})
    return load_config(
        ROOT / "configs" / "quickstart.yaml",
        [
            f"output={output}",
            f"policy.lora={lora}",
            "rollout.engine=vllm",
            f"rollout.vllm={mode}",
        ],
    )


@pytest.mark.parametrize(
    ("vllm", "lora", "message"),
    [
        ({"url": "http://a:8000", "urls": ["http://b:8000"]}, "null", "both given"),
        ({"urls": ["http://a:8000", "b:8000"]}, "null", "'b:8000' is no address"),
        ({"url": "gpu-7"}, "null", "'gpu-7' is no address"),
        ({"adapters": "adapter"}, "{rank: 2}", "servers get merged weights"),
        ({"mode": "colocated", "adapters": "adapter"}, "{dora: true}", "policy.lora.dora=true; set"),
        ({"mode": "colocated", "adapters": "adapter"}, "{vision: true}", "policy.lora.vision=true; set"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    tmp_path: Path, vllm: dict[str, Any], lora: str, message: str
) -> None:
    config = config_with(tmp_path, lora, **vllm)
    with pytest.raises(UserError, match=message):
        check_sampling(config, build_run_objective(config))


def test_without_addresses_it_is_the_usual_one(tmp_path: Path) -> None:
    assert check_servers(config_with(tmp_path)) == ["http://localhost:8000"]


def test_runs_that_name_one_folder_leave_each_others_weights_alone(
    tmp_path: Path, tiny_policy: Policy
) -> None:
    servers = FakeServer(), FakeServer()
    try:
        backends = [
            build_servers(
                config_with(tmp_path / run, url=server.url, weights="folder", weights_folder=str(tmp_path)),
                Accelerator(cpu=True),
                tiny_policy,
                lambda text: None,
            )
            for run, server in zip("ab", servers, strict=True)
        ]
        for value in (1.0, 2.0):
            for backend in backends:
                backend.load([("w", torch.tensor(value))])
        newest = [backend.pool.transport.newest for backend in backends]  # type: ignore[attr-defined]
        assert all(folder.exists() for folder in newest)
        backends[0].close()
        assert [folder.exists() for folder in newest] == [False, True]
    finally:
        for server in servers:
            server.kill()


def test_a_server_has_less_time_to_load_than_the_other_processes_wait(
    tmp_path: Path, tiny_policy: Policy
) -> None:
    server = FakeServer()
    try:
        config = config_with(tmp_path, url=server.url, weights="folder")
        backend = build_servers(config, Accelerator(cpu=True), tiny_policy, lambda text: None)
        client = backend.pool.servers[0].client
        assert client.load_timeout < config.distributed.timeout
        assert client.timeout == config.rollout.vllm.timeout
    finally:
        server.kill()
