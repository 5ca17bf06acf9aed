"""Differences between model families; the rest of the project treats all families identically."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mm_cpgd.errors import UserError
from mm_cpgd.policy.visual.positions import positions_of

# Attribute names of the vision tower and of its projector to the language model; the last two are for sound,
# which no prompt has.
VISION_MODULES = (
    "visual",
    "vision_tower",
    "vision_model",
    "multi_modal_projector",
    "mm_projector",
    "connector",
    "embed_vision",
    "merger",
    "audio_tower",
    "embed_audio",
)
# Features at the end of each row of an image (LLaVA-OneVision), beside the modules.
VISION_PARAMETERS = ("image_newline",)
CONTROL_TOKENS = (
    "image_token",
    "video_token",
    "vision_start_token",
    "vision_end_token",
    "boi_token",
    "eoi_token",
    "image_start_token",
    "image_end_token",
    "video_start_token",
    "video_end_token",
    "audio_token",
    "boa_token",
    "eoa_token",
)

# Families that support shared-prefix training: causal layers that all use one rotary embedding.
SHARED_PREFIX = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
# Values of ``policy.attention`` with which they do.
SHARED_ATTENTION = ("sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "eager")


def base_model(model: Any) -> Any:
    """Return the model from tokens and pixels to hidden states, without the language head."""
    return model.model


def language_model(model: Any) -> Any:
    """Return the decoder of text and image embeddings: token embeddings, layers and final norm."""
    base = base_model(model)
    names = ("language_model", "text_model")
    return next((getattr(base, name) for name in names if hasattr(base, name)), base)


def decoder_layers(model: Any) -> list[nn.Module]:
    """Return the layers of the decoder, in order."""
    return list(language_model(model).layers)


def shared_prefix_obstacle(model: Any) -> str | None:
    """Return why this model does not support shared prefixes, or None if it does."""
    kind = model.config.model_type
    if kind not in SHARED_PREFIX:
        return f"{kind} is not one of {', '.join(SHARED_PREFIX)}"
    config = language_model(model).config
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "some layers use sliding-window attention"
    if config._attn_implementation not in SHARED_ATTENTION:
        return f"policy.attention is {config._attn_implementation}, not {', '.join(SHARED_ATTENTION)}"
    return None


def image_features(model: Any, vision: Mapping[str, Tensor]) -> Tensor:
    """Compute the features of V image tokens for the language model of a ``SHARED_PREFIX`` family.

    Args:
        model: with its language head.
        vision: ``pixel_values`` and ``image_grid_thw`` of any number of images.

    Returns:
        (1 + K, V, H): the embeddings, and the features added after each of the first K layers (Qwen3-VL).
    """
    found = base_model(model).get_image_features(
        vision["pixel_values"], vision["image_grid_thw"], return_dict=True
    )
    layers = [found.pooler_output, *(getattr(found, "deepstack_features", None) or [])]
    # One tensor, or one per image, depending on the transformers version.
    return torch.stack([layer if isinstance(layer, Tensor) else torch.cat(list(layer)) for layer in layers])


def vision_modules(model: Any) -> list[nn.Module]:
    """Return the vision tower and its projector; empty if the model has none."""
    base = base_model(model)
    found = (getattr(base, name, None) for name in VISION_MODULES)
    return [module for module in found if module is not None]


def vision_parameters(model: Any) -> list[nn.Parameter]:
    """Return the parameters of the vision tower, of its projector and of the features beside them."""
    base = base_model(model)
    beside = (getattr(base, name, None) for name in VISION_PARAMETERS)
    inside = (p for module in vision_modules(model) for p in module.parameters())
    return [*inside, *(p for p in beside if isinstance(p, nn.Parameter))]


def control_token_ids(model: Any) -> set[int]:
    """Return the ids of image and video tokens, which must never be sampled."""
    names = [f"{token}_{suffix}" for token in CONTROL_TOKENS for suffix in ("id", "index")]
    ids = (getattr(model.config, name, None) for name in names)
    return {token for token in ids if isinstance(token, int)}


def image_token_id(config: Any) -> int | None:
    """Return the id of the token that the model replaces by an image, None if its config names none."""
    ids = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    return next((token for token in ids if isinstance(token, int)), None)


def vision_token_ids(config: Any) -> list[int]:
    """Return the ids of the tokens that a ``SHARED_PREFIX`` family replaces by features: image, video."""
    ids = (getattr(config, name, None) for name in ("image_token_id", "video_token_id"))
    return [token for token in ids if isinstance(token, int)]


def control_texts(processor: Any) -> set[str]:
    """Return texts that the tokenizer would read as control tokens: turn markers, image placeholders."""
    named = {getattr(processor, name, None) for name in CONTROL_TOKENS}
    added = {str(token) for token in processor.tokenizer.added_tokens_decoder.values() if token.special}
    return {text for text in named if isinstance(text, str)} | added


def prompt_positions(
    model: Any, input_ids: Tensor, token_types: Tensor | None, vision: Mapping[str, Tensor]
) -> Tensor:
    """Compute the position ids of the tokens of one prompt.

    Args:
        model: the model with its language head.
        input_ids: (L,).
        token_types: (L,) 0 text, 1 image, 2 video, or None.
        vision: the processor's other outputs, of which the sizes of the images are used.

    Returns:
        (3, L) time, height and width for the Qwen family (multimodal rotary positions), else (1, L).
    """
    base = base_model(model)
    if not hasattr(base, "get_rope_index"):
        return torch.arange(input_ids.numel()).unsqueeze(0)
    known = dict(vision)
    if token_types is not None and "video_grid_thw" in vision:
        return positions_of(model, token_types, known)
    if token_types is not None:
        known["mm_token_type_ids"] = token_types.unsqueeze(0)
    # Families differ in what they need, and older transformers find the images by their tokens alone.
    taken = inspect.signature(base.get_rope_index).parameters
    options = {name: value for name, value in known.items() if name in taken}
    positions, _ = base.get_rope_index(input_ids.unsqueeze(0), **options)
    found: Tensor = positions[:, 0]
    if token_types is not None and "image_grid_thw" in vision:
        stop_time_in_images(found, token_types)
    return found


def stop_time_in_images(positions: Tensor, token_types: Tensor) -> None:
    """Give all tokens of an image one position in time, where it begins; changes ``positions``.

    Some versions of transformers multiply it as they do for videos (huggingface/transformers#45325).

    Args:
        positions: (3, L) time, height and width.
        token_types: (L,) 1 for images, which never touch.
    """
    inside = token_types == 1
    before = torch.cat([inside.new_zeros(1), inside[:-1]])
    image_of = (inside & ~before).cumsum(0)
    for image in range(1, int(image_of.max()) + 1):
        tokens = inside & (image_of == image)
        positions[0, tokens] = positions[1, tokens].min()


def image_token_counts(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int] | None:
    """Return the number of tokens of images of these (height, width), or None if only encoding can tell.

    Raises:
        ValueError: the processor does not accept an image of such a size.
    """
    # Processors of other families add text around the image tokens: line breaks, tile names. In some versions
    # of transformers GLM's cannot count.
    images = processor.image_processor
    if not hasattr(images, "merge_size") or not hasattr(images, "get_number_of_image_patches"):
        return None
    return list(processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"])


def set_pixel_limits(processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    """Make the processor scale images to an area within these limits (pixels); None keeps its own limit.

    Raises:
        UserError: the limits contradict each other, or the family does not scale images by area.
    """
    if min_pixels is None and max_pixels is None:
        return
    images = processor.image_processor
    # The Qwen and GLM processors call the smallest area "shortest_edge" and the largest "longest_edge".
    if not hasattr(images, "merge_size") or "longest_edge" not in images.size:
        raise UserError(
            f"policy.min_pixels and policy.max_pixels have no effect on {type(images).__name__}; "
            "leave them out"
        )
    frames = _frames_of_an_image(images)
    smallest = min_pixels or images.size["shortest_edge"] // frames
    largest = max_pixels or images.size["longest_edge"] // frames
    if smallest > largest:
        raise UserError(
            f"images would have at least {smallest:,} and at most {largest:,} pixels; "
            "set policy.min_pixels below policy.max_pixels"
        )
    images.size = type(images.size)(shortest_edge=smallest * frames, longest_edge=largest * frames)


def _frames_of_an_image(images: Any) -> int:
    """Return how often the limits of a processor count an image: GLM's count it as the frames of a patch."""
    return int(images.temporal_patch_size) if type(images).__name__.startswith("Glm") else 1
