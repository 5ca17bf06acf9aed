"""A policy in shards of one process: what its forward pass is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data import load_examples
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import load_policy
from mm_cpgd.policy import policy as policy_module
from mm_cpgd.policy.sharding.fsdp2 import ShardSettings, shard_policy


@pytest.fixture
def _one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_rows_share_the_forward_pass_of_their_prompt_in_every_number_format(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None, freeze: bool
) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder), dtype="float32", freeze_vision=freeze))
    shard_policy(policy, ShardSettings(compute_dtype=dtype), torch.device("cpu"), reference=False)
    packed: list[int] = []
    pack = policy_module.pack
    monkeypatch.setattr(
        policy_module, "pack", lambda prompts, *rest: packed.append(len(prompts)) or pack(prompts, *rest)
    )
    prompts = [policy.encoder.encode(one) for one in load_examples("generated:shapes", limit=2).examples]
    rows = [prompts[0], prompts[0], prompts[1], prompts[1]]
    logprobs, _ = policy(rows, torch.full((4, 3), 100), torch.ones(4, 3, dtype=torch.bool))
    logprobs.sum().backward()
    assert packed == [2]
