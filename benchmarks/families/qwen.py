"""Tiny models of the Qwen-VL families: multimodal positions, and in 3.5 layers with recurrent states."""

from __future__ import annotations

from typing import Any

from transformers import (
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from benchmarks.families.parts import AREA, EXPERTS, MROPE, TEXT, Made, vocabulary

INTERLEAVED: dict[str, Any] = MROPE | {"mrope_section": [4, 2, 2]}
VISION: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}
DEEPSTACK: dict[str, Any] = {"deepstack_visual_indexes": [0, 1]}
# Every other layer keeps a recurrent state.
HYBRID: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": {**INTERLEAVED, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]},
}


def qwen2_vl(tokenizer: Any, template: str) -> Made:
    """A family whose vision tower sees whole images."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision: dict[str, Any] = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        text_config={**TEXT, **vocabulary(tokenizer), "rope_parameters": MROPE},
        vision_config=vision,
        tie_word_embeddings=False,
        **special_ids(tokenizer),
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=AREA),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=template,
    )
    return Qwen2VLForConditionalGeneration(config), processor


def qwen3_vl(tokenizer: Any, template: str) -> Made:
    """A family whose first layers get further image features added."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = _config(Qwen3VLConfig, tokenizer, {"rope_parameters": INTERLEAVED}, DEEPSTACK, tied=True)
    return Qwen3VLForConditionalGeneration(config), _processor(tokenizer, template)


def qwen3_vl_moe(tokenizer: Any, template: str) -> Made:
    """The same with experts, whose weights are one tensor per layer."""
    from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

    text = {"rope_parameters": INTERLEAVED, "num_experts": 4, "norm_topk_prob": True, **EXPERTS}
    config = _config(Qwen3VLMoeConfig, tokenizer, text, DEEPSTACK)
    return Qwen3VLMoeForConditionalGeneration(config), _processor(tokenizer, template)


def qwen3_5(tokenizer: Any, template: str) -> Made:
    """A family in which some layers keep a recurrent state in place of keys and values."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    config = _config(Qwen3_5Config, tokenizer, HYBRID, {}, tied=True)
    return Qwen3_5ForConditionalGeneration(config), _processor(tokenizer, template)


def qwen3_5_moe(tokenizer: Any, template: str) -> Made:
    """The same with experts, one of them for all tokens."""
    from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration

    text = {**HYBRID, "num_experts": 4, "shared_expert_intermediate_size": 32, **EXPERTS}
    config = _config(Qwen3_5MoeConfig, tokenizer, text, {})
    return Qwen3_5MoeForConditionalGeneration(config), _processor(tokenizer, template)


def special_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the ids of the tokens around and in place of images, as configs name them."""
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    return {
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
    }


def _config(
    kind: Any, tokenizer: Any, text: dict[str, Any], vision: dict[str, Any], *, tied: bool = False
) -> Any:
    return kind(
        text_config={**TEXT, "head_dim": 16, **vocabulary(tokenizer), **text},
        vision_config={**VISION, **vision},
        tie_word_embeddings=tied,
        **special_ids(tokenizer),
    )


def _processor(tokenizer: Any, template: str) -> Any:
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=AREA, patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=template,
    )
