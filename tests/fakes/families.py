"""Tiny models of several families, with random weights and their real processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}
SIZE = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}


def special_ids(tokenizer: Any) -> dict[str, Any]:
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    return {
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
    }


def qwen2_vl(tokenizer: Any, template: str) -> tuple[Any, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    vision: dict[str, Any] = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=vision,
        tie_word_embeddings=False,
        **special_ids(tokenizer),
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=SIZE),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=template,
    )
    return Qwen2VLForConditionalGeneration(config), processor


def qwen3_vl(tokenizer: Any, template: str) -> tuple[Any, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    vision: dict[str, Any] = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    config = Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 16, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=vision,
        tie_word_embeddings=True,
        **special_ids(tokenizer),
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=SIZE, patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=template,
    )
    return Qwen3VLForConditionalGeneration(config), processor


def llava(tokenizer: Any, template: str) -> tuple[Any, Any]:
    """A family without multimodal positions, whose images all have one size."""
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
    }
    config = LlavaConfig(
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
        vision_config=CLIPVisionConfig(**vision, image_size=56, patch_size=14),
        image_token_index=special_ids(tokenizer)["image_token_id"],
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<|image_pad|>",
        chat_template=template,
    )
    return LlavaForConditionalGeneration(config), processor


def gemma3(tokenizer: Any, template: str) -> tuple[Any, Any]:
    """A family with sliding windows, and with bidirectional attention within an image."""
    marks = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = Qwen2Tokenizer.from_pretrained(tokenizer.name_or_path, extra_special_tokens=marks)
    ids = {name: tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()}
    vision: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config={**TEXT, "head_dim": 16, "vocab_size": len(tokenizer), "sliding_window": 16},
        vision_config={**vision, "num_hidden_layers": 2, "image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        chat_template=template.replace("<|vision_start|><|image_pad|><|vision_end|>", "<start_of_image>"),
        image_seq_length=4,
    )
    return Gemma3ForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[Any, str], tuple[Any, Any]] | None] = {
    "qwen2_5_vl": None,  # the tiny policy itself
    "qwen2_vl": qwen2_vl,
    "qwen3_vl": qwen3_vl,
    "llava": llava,
    "gemma3": gemma3,
}


def build_family(name: str, tiny_folder: Path, place: Path) -> Path:
    """Write a model of a family into ``place``, with the tokenizer of the tiny policy; return its folder."""
    make = FAMILIES[name]
    if make is None:
        return tiny_folder
    tokenizer = Qwen2Tokenizer.from_pretrained(tiny_folder)
    torch.manual_seed(0)
    model, processor = make(tokenizer, (tiny_folder / "chat_template.jinja").read_text())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place
