"""Construction of the embedded policy: a tiny model of the Qwen2.5-VL architecture, built without downloads.

``build_tiny`` writes random weights with tokenizer, processor and chat template; ``build_embedded_policy``
trains them in two stages of supervised fine-tuning. The project treats the result like any other model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from data.generated import cold_start
from mm_cpgd.config.loading import load_config
from mm_cpgd.policy.model import EMBEDDED

# Shipped configs of the two stages of supervised fine-tuning.
STAGES = ("tiny_see", "tiny_habits")

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# ChatML as in Qwen2.5-VL, without the default system prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_embedded_policy(
    output: Path, assets: Path | None, overrides: Sequence[str], console: Console
) -> Path:
    """Build and fine-tune the embedded policy, and install it; an interrupted build resumes.

    Args:
        output: folder for the runs of the two stages.
        assets: folder to install the policy in; None: this package, where ``embedded:tiny`` finds it.
        overrides: for the configs of both stages, for instance ``training.threads=2``.
        console: for progress.

    Returns:
        The folder that the policy was installed in.
    """
    from mm_cpgd.training.run import fine_tune

    previous = build_tiny(output / "random")
    for stage in STAGES:
        folder = output / stage
        paths = [f"policy.model={previous}", f"output={folder}"]
        config = load_config(stage, [*paths, *overrides])
        console.print(f"[bold]{stage}[/]")
        fine_tune(config, resume=(folder / "config.yaml").exists(), console=console)
        previous = folder / "final"
    return install(previous, assets or EMBEDDED["embedded:tiny"])


def install(policy: Path, target: Path) -> Path:
    """Replace the target by a copy of the policy folder with weights in float16, which halves its size."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(policy, target)
    model = AutoModelForImageTextToText.from_pretrained(policy, dtype=torch.float16)
    model.save_pretrained(target)
    return target


def build_tiny(folder: Path, seed: int = 0, vocabulary: int = 640) -> Path:
    """Write a randomly initialised tiny policy as a ``from_pretrained`` folder.

    Args:
        folder: folder for model, tokenizer and processor.
        seed: seed of the initial weights.
        vocabulary: number of tokens, control tokens and bytes included.
    """
    rows = cold_start(("all",), 4000, seed=-1, describe=0.4, careful=0.3)
    texts = [text for row in rows for text in (row.question, row.solution or "")]
    tokenizer = _tokenizer(texts, vocabulary)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(_config(tokenizer))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def _tokenizer(texts: Iterable[str], vocabulary: int) -> Qwen2Tokenizer:
    """Train a byte-level BPE with Qwen's pre-tokenization; unknown words fall back to bytes."""
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(CONTROL_TOKENS) - len(TAGS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((_without_tags(text) for text in texts), trainer)
    trained: dict[str, Any] = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(pair) for pair in trained["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=32768,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    # One token per tag keeps completions short; not special, so that skip_special_tokens keeps the tag.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


def _without_tags(text: str) -> str:
    for tag in TAGS:
        text = text.replace(tag, "")
    return text


def _config(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    """Return the tiny config: 1.1 million parameters; images of 112 x 112 pixels become 16 visual tokens."""
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        # The usual 0.02 suits widths of thousands; at this width the image features would have no effect.
        "initializer_range": 0.06,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_heads": 4,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [1],
        "initializer_range": 0.08,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
