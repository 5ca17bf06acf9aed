"""Tiny models of the Gemma families: sliding windows, and attention in both directions within an image."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.families.parts import TEXT, Made, vocabulary, with_image, with_marks

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}


def gemma3(tokenizer: Any, template: str) -> Made:
    """A family whose image tokens see one another in all layers."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
    )

    marks = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer, ids = with_marks(tokenizer, marks)
    config = Gemma3Config(
        text_config={**TEXT, "head_dim": 16, **vocabulary(tokenizer), "sliding_window": 16},
        vision_config={**VISION, "image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        chat_template=with_image(template, "<start_of_image>"),
        image_seq_length=4,
    )
    model = Gemma3ForConditionalGeneration(config)
    # Zero at first: images would all look the same.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    return model, processor


def gemma4(tokenizer: Any, template: str) -> Made:
    """A family whose last layers use the keys and values of earlier ones, with embeddings in every layer."""
    from transformers import (
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
    )
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor

    names = {"image": "image", "video": "video", "audio": "audio"}
    marks = {f"{name}_token": f"<|{text}|>" for name, text in names.items()}
    marks |= {f"{name}_token": f"<|{name}|>" for name in ("boi", "eoi", "boa", "eoa")}
    tokenizer, ids = with_marks(tokenizer, marks)
    text = {**TEXT, "num_hidden_layers": 4, **vocabulary(tokenizer), "head_dim": 16}
    sharing = {
        "global_head_dim": 16,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": len(tokenizer),
        "hidden_size_per_layer_input": 8,
        "use_bidirectional_attention": "vision",
    }
    vision = {**VISION, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 8}
    config = Gemma4Config(
        text_config=text | sharing,
        vision_config={**vision, "position_embedding_size": 256, "pooling_kernel_size": 2},
        audio_config=None,
        eoa_token_index=ids.pop("eoa_token"),
        **{f"{name}_id": token for name, token in ids.items()},
    )
    images = {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(**images),
        image_seq_length=70,
        chat_template=with_image(template, "<|image|>"),
    )
    return Gemma4ForConditionalGeneration(config), processor
