"""The policy's weights as vLLM takes them: by name, one tensor at a time, or the adapters alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mm_cpgd.policy.lora import named_weights as weights_of_model
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.sharding.tensors import full_value

# Name of the only adapter in peft's modules, which files of adapters leave out.
_ADAPTER = ".default."


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Yield name and whole value of every weight in a fixed order, tied ones once, adapters merged in.

    A value is gathered or merged when it is asked for, so that there is never a second copy of the model.
    With sharded weights all processes have to go through this in step.
    """
    return weights_of_model(policy.model)


@dataclass(frozen=True)
class AdapterFiles:
    """LoRA adapters in the form of peft's files.

    Attributes:
        settings: ``adapter_config.json``.
        tensors: factors A (rank, in) and B (out, rank) of every layer on the CPU, by peft's name.
    """

    settings: dict[str, Any]
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write both files into a folder that exists."""
        (folder / "adapter_config.json").write_text(json.dumps(self.settings), encoding="utf-8")
        save_file(self.tensors, folder / "adapter_model.safetensors")


def adapter_files(policy: Policy) -> AdapterFiles:
    """Return the policy's adapters; with sharded weights called on all processes.

    Raises:
        ValueError: the policy has none.
    """
    if policy.adapter is None:
        raise ValueError("the policy has no adapters")
    config = policy.adapter.peft_config["default"]
    values = {
        name.replace(_ADAPTER, "."): full_value(parameter).to("cpu", copy=True)
        for name, parameter in policy.model.named_parameters()
        if ".lora_" in name
    }
    settings = {
        "peft_type": "LORA",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        # In full: the vision tower may have layers of the same name.
        "target_modules": sorted({name.split(".lora_")[0] for name in values}),
        "bias": "none",
    }
    return AdapterFiles(settings, {f"base_model.model.{name}": value for name, value in values.items()})
