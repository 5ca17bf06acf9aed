"""A policy in shards of one process: what its forward pass is given, and its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data import load_examples
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy import policy as policy_module
from mm_cpgd.policy.sharding.fsdp2 import ShardSettings, shard_policy
from mm_cpgd.policy.sharding.tensors import full_value


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


def gradients(policy: Policy, prompts: list[EncodedPrompt]) -> dict[str, torch.Tensor]:
    """Return those of a sum of log-probabilities, after a pass of the reference in between."""
    tokens, mask = torch.arange(20, 32).view(4, 3), torch.ones(4, 3, dtype=torch.bool)
    logprobs, _ = policy(prompts, tokens, mask)
    with torch.no_grad(), policy.as_reference() as reference:
        reference(prompts, tokens, mask)
    (logprobs * torch.arange(12.0).view(4, 3)).sum().backward()
    named = policy.model.named_parameters()
    return {name: full_value(value.grad) for name, value in named if value.grad is not None}


@pytest.mark.usefixtures("layers_as_they_are")
@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("free", [True, False])
def test_gradients_are_those_of_whole_weights_also_after_a_pass_of_the_reference(
    tiny_folder: Path, free: bool
) -> None:
    config = PolicyConfig(model=str(tiny_folder), dtype="float32", freeze_vision=False)
    policies = [load_policy(config).train() for _ in range(2)]
    policies[0].keep_reference()
    settings = ShardSettings(reshard_after_forward=free)
    shard_policy(policies[1], settings, torch.device("cpu"), reference=True)
    examples = load_examples("generated:shapes", limit=2).examples
    prompts = [policies[0].encoder.encode(examples[row // 2]) for row in range(4)]
    whole, sharded = (gradients(policy, prompts) for policy in policies)
    assert {"model.language_model.embed_tokens.weight", "model.language_model.norm.weight"} <= whole.keys()
    torch.testing.assert_close(sharded, whole, rtol=1e-5, atol=1e-6)
