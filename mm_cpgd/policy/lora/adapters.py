"""Files of adapters in peft's form: written beside a merged model, sent to vLLM, and read to start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mm_cpgd.errors import UserError
from mm_cpgd.policy.lora.layers import ADAPTER
from mm_cpgd.policy.sharding.tensors import full_value, is_sharded

SETTINGS, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Settings of peft that change what an adapter computes, and values with which it is W + alpha / rank · BA.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "use_rslora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "target_parameters": (None, []),
    "layer_replication": (None,),
}


@dataclass(frozen=True)
class AdapterFiles:
    """LoRA adapters in the form of peft's files.

    Attributes:
        settings: ``adapter_config.json``.
        tensors: factors A (rank, in) and B (out, rank) of every layer, and DoRA's norms (out,), on the CPU,
            by peft's name.
    """

    settings: dict[str, Any]
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write both files into a folder that exists."""
        text = json.dumps(self.settings, indent=2, sort_keys=True) + "\n"
        (folder / SETTINGS).write_text(text, encoding="utf-8")
        save_file(self.tensors, folder / TENSORS, metadata={"format": "pt"})


def adapter_files(model: nn.Module, adapter: Any, base: str | None = None) -> AdapterFiles:
    """Return a model's adapters; with sharded weights called on all processes.

    Args:
        model: with its adapters.
        adapter: the peft wrapper around it.
        base: name or folder of the model without adapters, for tools that load both.
    """
    config = adapter.peft_config[ADAPTER]
    values = {
        _name_in_files(name): full_value(parameter).to("cpu", copy=True).contiguous()
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }
    settings = {
        "peft_type": "LORA",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        # In full: the vision tower may have layers of the same name.
        "target_modules": sorted({name.removeprefix(_PREFIX).split(".lora_")[0] for name in values}),
        "bias": "none",
    }
    # Left out where they say nothing, as vLLM refuses what it does not know.
    settings |= {"use_dora": True} if config.use_dora else {}
    settings |= {} if base is None else {"base_model_name_or_path": base}
    return AdapterFiles(settings, values)


@torch.no_grad()
def start_from(model: nn.Module, adapter: Any, folder: Path) -> None:
    """Set a model's adapters to those of a folder.

    Args:
        model: with adapters, whose values are replaced; not yet sharded.
        adapter: the peft wrapper around it.
        folder: ``adapter_config.json`` and ``adapter_model.safetensors``, as peft writes them.

    Raises:
        UserError: the folder has no adapters, or others than the config asks for; says which keys to set.
    """
    settings, tensors = _read(folder)
    _check_settings(folder, settings, adapter.peft_config[ADAPTER])
    own = {_name_in_files(name): value for name, value in model.named_parameters() if ".lora_" in name}
    _check_names(folder, own, tensors)
    for name, parameter in own.items():
        if parameter.shape != tensors[name].shape:
            raise UserError(
                f"policy.lora.adapter={str(folder)!r}: {name} has shape {list(tensors[name].shape)}, and the "
                f"model needs {list(parameter.shape)}; name adapters of policy.model"
            )
        if not is_sharded(parameter) and not parameter.is_meta:
            parameter.copy_(tensors[name])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"policy.lora.adapter={str(folder)!r} could not be loaded: {error}; name a folder with "
            f"{SETTINGS} and {TENSORS}"
        ) from error
    if not isinstance(settings, dict):
        raise UserError(f"policy.lora.adapter={str(folder)!r}: {SETTINGS} is no table of settings")
    return settings, tensors


def _check_settings(folder: Path, settings: Mapping[str, Any], config: Any) -> None:
    """Refuse adapters that compute something else than the config's."""
    for key, plain in _PLAIN.items():
        if settings.get(key, plain[0]) not in plain:
            raise UserError(
                f"policy.lora.adapter={str(folder)!r}: {key} is {settings[key]!r}, which is not supported; "
                "merge the adapters into their model (peft: merge_and_unload), and start from that"
            )
    found = {
        "rank": settings.get("r"),
        "alpha": settings.get("lora_alpha"),
        "dora": bool(settings.get("use_dora", False)),
    }
    own = {"rank": config.r, "alpha": config.lora_alpha, "dora": config.use_dora}
    if wrong := [key for key in own if own[key] != found[key]]:
        wanted = ", ".join(f"policy.lora.{key}={str(found[key]).lower()}" for key in wrong)
        raise UserError(f"policy.lora.adapter={str(folder)!r} needs {wanted}; set it, or name other adapters")


def _check_names(folder: Path, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Refuse adapters of other layers than the config's."""
    if own.keys() == tensors.keys():
        return
    layers = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in tensors})
    missing, further = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    example = f"{missing[0]} is missing" if missing else f"{further[0]} is not of the config's layers"
    raise UserError(
        f"policy.lora.adapter={str(folder)!r} adapts other layers than policy.lora.targets ({len(missing)} "
        f"tensors missing, {len(further)} superfluous: {example}); set "
        f"policy.lora.targets=[{', '.join(layers)}], and policy.lora.vision=true for a vision tower"
    )


def _name_in_files(name: str) -> str:
    """Return peft's name in files of a parameter of an adapter."""
    inner = name.replace(f".{ADAPTER}.", ".").removesuffix(f".{ADAPTER}")
    # Norms are files' vectors, and modules' weights.
    return _PREFIX + inner.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")
