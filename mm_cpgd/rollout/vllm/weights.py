"""The policy's weights as vLLM takes them: by name, one tensor at a time, or the adapters alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from mm_cpgd.policy.lora.adapters import AdapterFiles
from mm_cpgd.policy.lora.adapters import adapter_files as files_of_adapters
from mm_cpgd.policy.lora.layers import named_weights as weights_of_model
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.sharding.saving import as_in_files, layer_of

# Families whose names and layouts in transformers vLLM takes as it takes those of files.
SAME_NAMES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

__all__ = ["AdapterFiles", "adapter_files", "named_weights"]


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Yield name and whole value of every weight in a fixed order, tied ones once, adapters merged in.

    A value is gathered or merged when it is asked for, or with the layer that it is part of, so that there is
    never a second copy of the model. With sharded weights all processes have to go through this in step.
    """
    weights = weights_of_model(policy.model)
    if policy.model.config.model_type in SAME_NAMES:
        return weights
    return _as_in_files(policy.model, weights)


def _as_in_files(model: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights layer by layer with the names and layouts of files, which vLLM's loaders are for."""
    for _, layer in itertools.groupby(weights, lambda item: layer_of(item[0])):
        yield from as_in_files(model, dict(layer)).items()


def adapter_files(policy: Policy) -> AdapterFiles:
    """Return the policy's adapters; with sharded weights called on all processes.

    Raises:
        ValueError: the policy has none.
    """
    if policy.adapter is None:
        raise ValueError("the policy has no adapters")
    return files_of_adapters(policy.model, policy.adapter)
