"""The policy of a run on its devices: whole on every process, or sharded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.distributed import Strategy, together
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.model import training_dtype
from mm_cpgd.policy.sharding.fsdp2 import GatheredPolicy, ShardSettings, shard_policy


@dataclass(frozen=True)
class PlacedPolicy:
    """A policy on its devices.

    Attributes:
        policy: what is trained.
        gathered: the same with whole weights, to sample from; None if the policy's are whole.
    """

    policy: Policy
    gathered: GatheredPolicy | None = None


def place_policy(
    config: RunConfig,
    accelerator: Accelerator,
    strategy: Strategy,
    *,
    reference: bool,
    say: Callable[[str], None],
) -> PlacedPolicy:
    """Load the policy and put it on the devices.

    Args:
        config: the run's config.
        accelerator: the run's accelerator.
        strategy: whether to shard.
        reference: whether to keep the loaded policy as reference.
        say: receives lines for the user.

    Raises:
        UserError: on all processes, if one of them cannot load or shard the model.
    """
    sharded = strategy.sharded and accelerator.num_processes > 1
    if strategy.sharded and not sharded:
        say("distributed.strategy=fsdp2: with one process there is nothing to shard")
    loaded = config.policy
    if strategy.checkpoint_layers and not loaded.gradient_checkpointing:
        loaded = loaded.model_copy(update={"gradient_checkpointing": True})

    def load() -> Policy:
        return load_policy(
            loaded,
            config.training.logprob_chunk,
            shared_prefix=config.rollout.shared_prefix,
            samples=config.rollout.engine == "local",
            # With shards, only the main process needs the weights.
            weights=not sharded or accelerator.is_main_process,
            as_stored=sharded,
            say=say,
        )

    # The first process of a machine downloads. Not by accelerate's local_main_process_first, in which the
    # others wait for one that has failed.
    first = accelerator.is_local_main_process
    early = together(accelerator, lambda: load() if first else None)
    policy = together(accelerator, lambda: load() if early is None else early)
    if not sharded:
        policy = policy.to(accelerator.device)
        if reference:
            policy.keep_reference()
        return PlacedPolicy(policy)
    settings = shard_settings(config, accelerator, strategy)
    gathered = together(
        accelerator, lambda: shard_policy(policy, settings, accelerator.device, reference=reference)
    )
    return PlacedPolicy(policy, gathered)


def shard_settings(config: RunConfig, accelerator: Accelerator, strategy: Strategy) -> ShardSettings:
    """Return the number formats and places of the shards."""
    wanted = training_dtype(config.policy)
    return ShardSettings(
        cpu_offload=strategy.cpu_offload,
        reshard_after_forward=strategy.reshard_after_forward,
        dtype=wanted if isinstance(wanted, torch.dtype) else None,
        compute_dtype=torch.bfloat16 if accelerator.mixed_precision == "bf16" else None,
    )
