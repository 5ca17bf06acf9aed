"""Tiny models of Idefics3 and SmolVLM2, whose images are tiles with a text in front of each."""

from __future__ import annotations

from typing import Any

from benchmarks.families.parts import TEXT, Made, vocabulary, with_image, with_marks

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "image_size": 56,
    "patch_size": 14,
}
IMAGES: dict[str, Any] = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
MARKS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "end_of_utterance_token": "<end_of_utterance>",
    "global_image_token": "<global-img>",
}


def idefics3(tokenizer: Any, template: str) -> Made:
    """Idefics3."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    tokenizer, ids = with_marks(tokenizer, MARKS)
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**IMAGES),
        tokenizer,
        image_seq_len=4,
        chat_template=with_image(template, "<image>"),
    )
    config = Idefics3Config(**_parts(tokenizer, ids))
    return Idefics3ForConditionalGeneration(config), processor


def smolvlm(tokenizer: Any, template: str) -> Made:
    """SmolVLM2; its processor needs num2words."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
    )
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    tokenizer, ids = with_marks(tokenizer, MARKS | {"video_token": "<video>"})
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**IMAGES),
        tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=with_image(template, "<image>"),
    )
    config = SmolVLMConfig(**_parts(tokenizer, ids))
    return SmolVLMForConditionalGeneration(config), processor


def _parts(tokenizer: Any, ids: dict[str, int]) -> dict[str, Any]:
    return {
        "text_config": {
            "model_type": "llama",
            **TEXT,
            **vocabulary(tokenizer),
        },
        "vision_config": VISION,
        "image_token_id": ids["image_token"],
    }
