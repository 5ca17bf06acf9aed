"""Tiny models of Kimi and MiniCPM-V, whose towers see images of all sizes packed into one sequence."""

from __future__ import annotations

from typing import Any

from benchmarks.families.parts import EXPERTS, TEXT, Made, vocabulary, with_image, with_marks
from benchmarks.families.qwen import HYBRID

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "patch_size": 14,
}


def kimi_k25(tokenizer: Any, template: str) -> Made:
    """Kimi K2.5: compressed keys and values, and experts."""
    from transformers import (
        Kimi_K25Config,
        Kimi_K25ForConditionalGeneration,
        Kimi_K25ImageProcessor,
        Kimi_K25Processor,
    )
    from transformers.models.kimi_k25.video_processing_kimi_k25 import Kimi_K25VideoProcessor

    marks = {
        "image_token": "<|media_pad|>",
        "video_token": "<|kimi_k25_video_placeholder|>",
        "vision_start_token": "<|media_begin|>",
        "vision_end_token": "<|media_end|>",
    }
    tokenizer, ids = with_marks(tokenizer, marks)
    attention = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    experts = {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
    text = {**TEXT, "model_type": "deepseek_v3", **vocabulary(tokenizer), "num_key_value_heads": 4}
    config = Kimi_K25Config(
        text_config={**text, **attention, **experts, "v_head_dim": 16},
        vision_config={**VISION, "pos_emb_height": 8, "pos_emb_width": 8},
        projection_hidden_size=32,
        tie_word_embeddings=False,
        **{f"{name}_id": token for name, token in ids.items()},
    )
    processor = Kimi_K25Processor(
        image_processor=Kimi_K25ImageProcessor(max_patches=64),
        tokenizer=tokenizer,
        video_processor=Kimi_K25VideoProcessor(),
        chat_template=with_image(template, "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"),
    )
    return Kimi_K25ForConditionalGeneration(config), processor


def minicpmv4_6(tokenizer: Any, template: str) -> Made:
    """MiniCPM-V 4.6: the language model of Qwen3.5, with ordinary positions."""
    from transformers import (
        MiniCPMV4_6Config,
        MiniCPMV4_6ForConditionalGeneration,
        MiniCPMV4_6ImageProcessor,
        MiniCPMV4_6Processor,
    )
    from transformers.models.minicpmv4_6.video_processing_minicpmv4_6 import MiniCPMV4_6VideoProcessor

    tokenizer, ids = with_marks(tokenizer, _MINICPM)
    config = MiniCPMV4_6Config(**_minicpm(tokenizer, ids))
    processor = MiniCPMV4_6Processor(
        image_processor=MiniCPMV4_6ImageProcessor(scale_resolution=112, max_slice_nums=4),
        video_processor=MiniCPMV4_6VideoProcessor(),
        tokenizer=tokenizer,
        chat_template=with_image(template, "<|image_pad|>"),
    )
    return MiniCPMV4_6ForConditionalGeneration(config), processor


def minicpmv4_7(tokenizer: Any, template: str) -> Made:
    """MiniCPM-V 4.7: the slices of an image have positions on one canvas."""
    from transformers import (
        MiniCPMV4_6ImageProcessor,
        MiniCPMV4_7Config,
        MiniCPMV4_7ForConditionalGeneration,
        MiniCPMV4_7Processor,
    )
    from transformers.models.minicpmv4_6.video_processing_minicpmv4_6 import MiniCPMV4_6VideoProcessor

    tokenizer, ids = with_marks(tokenizer, _MINICPM)
    markers = {f"{name}_id": ids[f"{name}_token"] for name in _MARKERS}
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    config = MiniCPMV4_7Config(**_minicpm(tokenizer, ids), **markers, newline_id=newline)
    processor = MiniCPMV4_7Processor(
        image_processor=MiniCPMV4_6ImageProcessor(scale_resolution=112, max_slice_nums=4),
        video_processor=MiniCPMV4_6VideoProcessor(),
        tokenizer=tokenizer,
        chat_template=with_image(template, "<|image_pad|>"),
    )
    return MiniCPMV4_7ForConditionalGeneration(config), processor


_MINICPM = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
_MARKERS = ("image_start", "image_end", "slice_start", "slice_end")


def _minicpm(tokenizer: Any, ids: dict[str, int]) -> dict[str, Any]:
    text = {**TEXT, "model_type": "qwen3_5_text", "head_dim": 16, **vocabulary(tokenizer), **HYBRID}
    return {
        "text_config": text,
        "vision_config": {**VISION, "image_size": 112, "insert_layer_id": 0},
        "insert_layer_id": 0,
        "image_token_id": ids["image_token"],
        "video_token_id": ids["video_token"],
    }
