"""Everything that depends on the family of the model; the rest of the project treats all alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Where the families keep the vision tower inside their base model.
VISION_MODULES = ("visual", "vision_tower", "vision_model")


def base_model(model: Any) -> Any:
    """Return the part that turns tokens and pixels into hidden states, without the language head."""
    return model.model


def vision_modules(model: Any) -> list[nn.Module]:
    """Return the vision tower with its projector; empty when the model has none."""
    base = base_model(model)
    return [getattr(base, name) for name in VISION_MODULES if hasattr(base, name)]


def control_token_ids(model: Any) -> set[int]:
    """Return tokens that stand for images or videos and must never be sampled."""
    names = (
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "image_token_index",
    )
    ids = (getattr(model.config, name, None) for name in names)
    return {token for token in ids if isinstance(token, int)}


def prompt_positions(
    model: Any, input_ids: Tensor, token_types: Tensor | None, vision: Mapping[str, Tensor]
) -> Tensor:
    """Return the positions that the model gives the tokens of one prompt.

    Args:
        model: the model with its language head.
        input_ids: (L,).
        token_types: (L,) 0 text, 1 image, 2 video, or None.
        vision: the processor's other outputs; ``image_grid_thw`` (images, 3) is read.

    Returns:
        (3, L) time, height and width for the Qwen family (multimodal rotary positions), else (1, L).
    """
    base = base_model(model)
    if not hasattr(base, "get_rope_index"):
        return torch.arange(input_ids.numel()).unsqueeze(0)
    types = token_types if token_types is not None else torch.zeros_like(input_ids)
    positions, _ = base.get_rope_index(
        input_ids.unsqueeze(0),
        mm_token_type_ids=types.unsqueeze(0),
        image_grid_thw=vision.get("image_grid_thw"),
    )
    return positions[:, 0]
