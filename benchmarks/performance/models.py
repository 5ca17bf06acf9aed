"""Models of the measurements: the embedded tiny one, and random weights in the shapes of published ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

# One visual token of the Qwen family is a square of two by two patches of 14 pixels.
PIXELS = 28
# Published shapes of Qwen2.5-VL (config.json of the models); head size 128, vision tower of 32 layers.
TEXT: dict[str, dict[str, Any]] = {
    "3b": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "7b": {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}
VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "initializer_range": 0.02,
}
SHAPES = ("tiny", *TEXT)


def config_of(shape: str) -> Any:
    """Return the model's config from transformers; its tokenizer and special tokens are the tiny model's."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(_tiny())
    if shape == "tiny":
        return config
    text = TEXT[shape]
    values = {
        **text,
        "layer_types": ["full_attention"] * text["num_hidden_layers"],
        "initializer_range": 0.02,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    for name, value in values.items():
        setattr(config.text_config, name, value)
    config.tie_word_embeddings = text["tie_word_embeddings"]
    for name, value in (VISION | {"out_hidden_size": text["hidden_size"]}).items():
        setattr(config.vision_config, name, value)
    return config


def random_model(shape: str, device: str, attention: str = "sdpa") -> Any:
    """Return the model: of ``tiny`` its own weights in float32, else random ones in bfloat16.

    Args:
        shape: one of ``SHAPES``.
        device: where the weights are made.
        attention: attention implementation, as transformers names it.
    """
    from transformers import AutoModelForImageTextToText, GenerationConfig

    if shape == "tiny":
        tiny = AutoModelForImageTextToText.from_pretrained(
            _tiny(), dtype=torch.float32, attn_implementation=attention
        )
        return tiny.to(device)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            config_of(shape), dtype=torch.bfloat16, attn_implementation=attention
        )
    model.generation_config = GenerationConfig.from_pretrained(_tiny())
    return model


def processor_for(visual_tokens: int) -> Any:
    """Return the processor, which leaves images of up to this many visual tokens as they are."""
    from transformers import AutoProcessor

    from mm_cpgd.policy.families import set_pixel_limits

    processor = AutoProcessor.from_pretrained(_tiny())
    set_pixel_limits(processor, PIXELS**2, PIXELS**2 * max(1280, visual_tokens))
    return processor


def write_model(folder: Path, shape: str, visual_tokens: int) -> Path:
    """Write model and processor as a ``from_pretrained`` folder, unless it is there; return the folder."""
    if not folder.exists():
        # Renamed when complete: a process that is killed meanwhile leaves nothing that looks like a model.
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        processor_for(visual_tokens).save_pretrained(part)
        random_model(shape, "cuda" if torch.cuda.is_available() else "cpu").save_pretrained(part)
        part.rename(folder)
    return folder


def _tiny() -> Path:
    from mm_cpgd.policy.model import EMBEDDED

    return EMBEDDED["embedded:tiny"]
