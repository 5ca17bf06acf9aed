"""Frozen weights in 4 bits below trained adapters (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from mm_cpgd.errors import UserError
from mm_cpgd.policy.families import VISION_MODULES


def quantization_options(kind: str | None, dtype: torch.dtype | str) -> dict[str, Any]:
    """Return the options of ``from_pretrained`` that quantize the language model's linear layers.

    Vision tower, embeddings and head stay as they are; the scales of the weights are quantized too.

    Args:
        kind: ``nf4``, or None for no quantization.
        dtype: of training; matrix products are computed in it.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if kind is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"policy.lora.quantize={kind} needs bitsandbytes; run `pip install bitsandbytes`, or leave it out"
        )
    from transformers import BitsAndBytesConfig

    whole = [*VISION_MODULES, *(f"model.{name}" for name in VISION_MODULES), "lm_head"]
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype,
        llm_int8_skip_modules=whole,
    )
    return {"quantization_config": config}


def keep_one_layout(model: nn.Module) -> None:
    """Keep bitsandbytes from rounding scales once more to sample on a CPU: it would be another policy."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False
