"""Tiny models of the GLM-V families: multimodal rotary positions, fused projections, and experts in 4.5V."""

from __future__ import annotations

from typing import Any

from benchmarks.families.parts import AREA, EXPERTS, MROPE, TEXT, Made, vocabulary, with_image, with_marks

VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "image_size": 56,
    "patch_size": 14,
}
HALF_ROTARY: dict[str, Any] = MROPE | {"partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2]}
MARKS = {
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "image_start_token": "<|begin_of_image|>",
    "image_end_token": "<|end_of_image|>",
    "video_start_token": "<|begin_of_video|>",
    "video_end_token": "<|end_of_video|>",
}


def glm4v(tokenizer: Any, template: str) -> Made:
    """GLM-4.1V."""
    from transformers import Glm4vConfig, Glm4vForConditionalGeneration

    tokenizer, ids = with_marks(tokenizer, MARKS)
    text = {**TEXT, **vocabulary(tokenizer), "rope_parameters": HALF_ROTARY}
    config = Glm4vConfig(text_config=text, vision_config=VISION, **_ids(ids))
    return Glm4vForConditionalGeneration(config), _processor(tokenizer, template)


def glm4v_moe(tokenizer: Any, template: str) -> Made:
    """GLM-4.5V: the first layer is dense, the others have experts."""
    from transformers import Glm4vMoeConfig, Glm4vMoeForConditionalGeneration

    tokenizer, ids = with_marks(tokenizer, MARKS)
    text = {**TEXT, "head_dim": 16, **vocabulary(tokenizer), "rope_parameters": HALF_ROTARY}
    experts: dict[str, Any] = {"n_routed_experts": 4, "use_qk_norm": False, **EXPERTS}
    config = Glm4vMoeConfig(text_config=text | experts, vision_config=VISION, **_ids(ids))
    return Glm4vMoeForConditionalGeneration(config), _processor(tokenizer, template)


def _ids(ids: dict[str, int]) -> dict[str, Any]:
    return {f"{name}_id": token for name, token in ids.items()}


def _processor(tokenizer: Any, template: str) -> Any:
    from transformers import Glm4vImageProcessor, Glm4vProcessor
    from transformers.models.glm4v.video_processing_glm4v import Glm4vVideoProcessor

    return Glm4vProcessor(
        image_processor=Glm4vImageProcessor(size=AREA),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(),
        chat_template=with_image(template, "<|begin_of_image|><|image|><|end_of_image|>"),
    )
