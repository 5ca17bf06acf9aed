"""All families of the matrix, and the writing of a tiny model of one, with random weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from benchmarks.families import gemma, glm, idefics, llava, packed, qwen
from benchmarks.families.parts import Made


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        title: names of published models.
        make: builds model and processor from tokenizer and chat template; None: the tiny policy itself.
        needs: packages besides the project's that its processor imports.
        tower: name of the vision tower in published files, if transformers shortens it.
    """

    title: str
    make: Callable[[Any, str], Made] | None
    needs: tuple[str, ...] = ()
    tower: str = ""


FAMILIES = {
    "qwen2_vl": Family("Qwen2-VL", qwen.qwen2_vl),
    "qwen2_5_vl": Family("Qwen2.5-VL", None),
    "qwen3_vl": Family("Qwen3-VL", qwen.qwen3_vl),
    "qwen3_vl_moe": Family("Qwen3-VL-MoE", qwen.qwen3_vl_moe),
    "qwen3_5": Family("Qwen3.5, Qwen3.6", qwen.qwen3_5),
    "qwen3_5_moe": Family("Qwen3.5-MoE, Qwen3.6-MoE", qwen.qwen3_5_moe),
    "internvl": Family("InternVL3, InternVL3.5 (-HF)", llava.internvl),
    "glm4v": Family("GLM-4.1V", glm.glm4v),
    "glm4v_moe": Family("GLM-4.5V", glm.glm4v_moe),
    "gemma3": Family("Gemma 3", gemma.gemma3, tower="vision_tower.vision_model"),
    "gemma4": Family("Gemma 4", gemma.gemma4),
    "llava": Family("LLaVA 1.5", llava.llava, tower="vision_tower.vision_model"),
    "llava_onevision": Family("LLaVA-OneVision", llava.llava_onevision, tower="vision_tower.vision_model"),
    "smolvlm": Family("SmolVLM, SmolVLM2", idefics.smolvlm, ("num2words",)),
    "idefics3": Family("Idefics3", idefics.idefics3),
    "kimi_k25": Family("Kimi K2.5, K2.6", packed.kimi_k25),
    "minicpmv4_6": Family("MiniCPM-V 4.6", packed.minicpmv4_6),
    "minicpmv4_7": Family("MiniCPM-V 4.7", packed.minicpmv4_7),
}


def absence(name: str) -> str | None:
    """Return why the family cannot be built here, None if it can."""
    if name not in CONFIG_MAPPING_NAMES:
        return f"this version of transformers has no {name}"
    return not_installed(FAMILIES[name].needs)


def not_installed(packages: Iterable[str]) -> str | None:
    """Return which of the packages is not installed, None if all are."""
    missing = (package for package in packages if importlib.util.find_spec(package) is None)
    return next((f"{package} is not installed" for package in missing), None)


def build_family(name: str, tiny_folder: Path, place: Path) -> Path:
    """Write a model of a family into ``place``, with the tokenizer of the tiny policy; return its folder.

    Args:
        name: key of ``FAMILIES``, and of transformers' configs.
        tiny_folder: as ``mm_cpgd.tiny.build.build_tiny`` writes it.
        place: an empty folder; not used for the tiny policy's own family.
    """
    make = FAMILIES[name].make
    if make is None:
        return tiny_folder
    tokenizer = Qwen2Tokenizer.from_pretrained(tiny_folder)
    torch.manual_seed(0)
    model, processor = make(tokenizer, (tiny_folder / "chat_template.jinja").read_text())
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(place)
    _name_as_published(place / "model.safetensors", FAMILIES[name].tower)
    processor.save_pretrained(place)
    return place


def _name_as_published(file: Path, tower: str) -> None:
    """Rename the vision tower's weights, where a model that was not loaded is saved under shorter names."""
    if not tower:
        return
    first = f"{tower.split('.')[0]}."
    weights = load_file(file)
    inside = {key: value for key, value in weights.items() if first in key and tower not in key}
    renamed = {key.replace(first, f"{tower}.", 1): weights.pop(key) for key in inside}
    save_file(weights | renamed, file, metadata={"format": "pt"})
