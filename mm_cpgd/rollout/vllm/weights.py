"""The policy's weights as vLLM takes them: by name, with adapters merged in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.policy.lora import merged_weights
from mm_cpgd.policy.policy import Policy


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Yield name and weight of every parameter, tied ones once; with adapters merged copies on the CPU.

    Raises:
        UserError: the weights are sharded, so that no process has a complete one.
    """
    if policy.adapter is None:
        for name, parameter in policy.model.named_parameters():
            _check_not_sharded(name, parameter)
            yield name, parameter.detach()
        return
    merged = merged_weights(policy.model)
    for name, parameter in policy.model.named_parameters():
        if ".lora_" not in name:
            _check_not_sharded(name, parameter)
            plain = name.replace(".base_layer.", ".")
            yield plain, merged[plain]


def _check_not_sharded(name: str, parameter: Any) -> None:
    # FSDP2 keeps a DTensor, DeepSpeed ZeRO-3 an empty tensor with an id.
    if hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id"):
        raise UserError(
            f"rollout.engine=vllm cannot send {name}, which is sharded over processes (FSDP or DeepSpeed "
            "ZeRO-3); train with DDP"
        )
