"""Parts that the builders of tiny models share: sizes, special tokens, chat templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Qwen2Tokenizer

# Model and processor.
Made = tuple[Any, Any]
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
# For layers whose rotary positions have three axes.
MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
# Smallest and largest area of an image in pixels.
AREA = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def vocabulary(tokenizer: Any) -> dict[str, int]:
    """Return a text config's keys about the tokenizer; some versions of transformers know no default."""
    return {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}


def with_marks(tokenizer: Any, marks: Mapping[str, str]) -> tuple[Any, dict[str, int]]:
    """Return the tokenizer with further special tokens as attributes, and their ids by the same names.

    Args:
        tokenizer: loaded from a folder.
        marks: attribute (``image_token`` …) and text of each token.
    """
    larger = Qwen2Tokenizer.from_pretrained(tokenizer.name_or_path, extra_special_tokens=dict(marks))
    return larger, {name: larger.convert_tokens_to_ids(mark) for name, mark in marks.items()}


def with_image(template: str, mark: str) -> str:
    """Return the chat template with another text in place of each image."""
    return template.replace(QWEN_IMAGE, mark)
