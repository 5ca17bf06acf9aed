"""Tiny models of families with a CLIP-like tower and ordinary positions: LLaVA, LLaVA-OneVision, InternVL."""

from __future__ import annotations

from typing import Any

from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaProcessor, Qwen2Config

from benchmarks.families.parts import TEXT, Made, vocabulary, with_image, with_marks
from benchmarks.families.qwen import special_ids

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
}
SQUARE = {"height": 56, "width": 56}


def llava(tokenizer: Any, template: str) -> Made:
    """A family whose images all have one size."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        text_config=LlamaConfig(**TEXT, **vocabulary(tokenizer)),
        vision_config=CLIPVisionConfig(**VISION, image_size=56, patch_size=14),
        image_token_index=special_ids(tokenizer)["image_token_id"],
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=SQUARE),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<|image_pad|>",
        chat_template=template,
    )
    return LlavaForConditionalGeneration(config), processor


def llava_onevision(tokenizer: Any, template: str) -> Made:
    """A family that cuts images into a number of tiles that depends on their shape."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.video_processing_llava_onevision import (
        LlavaOnevisionVideoProcessor,
    )

    tokenizer, ids = with_marks(tokenizer, {"image_token": "<image>", "video_token": "<video>"})
    grid = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**TEXT, **vocabulary(tokenizer)),
        vision_config=SiglipVisionConfig(**VISION, image_size=56, patch_size=14, vision_use_head=False),
        image_token_index=ids["image_token"],
        video_token_index=ids["video_token"],
        image_grid_pinpoints=grid,
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=grid),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=with_image(template, "<image>"),
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def internvl(tokenizer: Any, template: str) -> Made:
    """A family that cuts images into tiles and shuffles four positions into one token."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
    )
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    marks = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer, ids = with_marks(tokenizer, marks)
    config = InternVLConfig(
        text_config=Qwen2Config(**TEXT, **vocabulary(tokenizer)).to_dict(),
        vision_config={**VISION, "image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=ids["context_image_token"],
        image_seq_length=4,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SQUARE, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=with_image(template, "<IMG_CONTEXT>"),
    )
    return InternVLForConditionalGeneration(config), processor
