"""The policy's weights under the names of its checkpoint, for an engine that holds its own copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.policy.lora import merged_weights

if TYPE_CHECKING:
    from mm_cpgd.policy import Policy


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Yield name and weight of every parameter, tied ones once; with adapters, merged copies on the CPU.

    Raises:
        UserError: the weights are spread over processes, so that no process has a whole one.
    """
    if policy.adapter is None:
        for name, parameter in policy.model.named_parameters():
            _check_whole(name, parameter)
            yield name, parameter.detach()
        return
    merged = merged_weights(policy.model)
    for name, parameter in policy.model.named_parameters():
        if ".lora_" not in name:
            _check_whole(name, parameter)
            plain = name.replace(".base_layer.", ".")
            yield plain, merged[plain]


def _check_whole(name: str, parameter: Any) -> None:
    # FSDP2 keeps a DTensor, DeepSpeed ZeRO-3 an empty tensor with an id.
    if hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id"):
        raise UserError(
            f"rollout.engine=vllm cannot send {name}, which is spread over processes (FSDP or DeepSpeed "
            "ZeRO-3); train with DDP"
        )
