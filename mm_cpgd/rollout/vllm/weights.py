"""The policy's weights as vLLM takes them: by name, one tensor at a time, or the adapters alone."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from mm_cpgd.policy.adapters import AdapterFiles
from mm_cpgd.policy.adapters import adapter_files as files_of_adapters
from mm_cpgd.policy.lora import named_weights as weights_of_model
from mm_cpgd.policy.policy import Policy

__all__ = ["AdapterFiles", "adapter_files", "named_weights"]


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Yield name and whole value of every weight in a fixed order, tied ones once, adapters merged in.

    A value is gathered or merged when it is asked for, so that there is never a second copy of the model.
    With sharded weights all processes have to go through this in step.
    """
    return weights_of_model(policy.model)


def adapter_files(policy: Policy) -> AdapterFiles:
    """Return the policy's adapters; with sharded weights called on all processes.

    Raises:
        ValueError: the policy has none.
    """
    if policy.adapter is None:
        raise ValueError("the policy has no adapters")
    return files_of_adapters(policy.model, policy.adapter)
