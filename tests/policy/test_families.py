"""All families: encoding, sampling, log-probabilities and gradients agree with transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
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

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.families import control_token_ids, vision_modules
from mm_cpgd.rollout import LocalEngine, Sampling

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


@pytest.fixture(scope="module", params=FAMILIES)
def folder(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    make = FAMILIES[request.param]
    if make is None:
        return tiny_folder
    tokenizer = Qwen2Tokenizer.from_pretrained(tiny_folder)
    torch.manual_seed(0)
    model, processor = make(tokenizer, (tiny_folder / "chat_template.jinja").read_text())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    place: Path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(PolicyConfig(model=str(folder)))


@pytest.fixture(scope="module")
def prompts(policy: Policy, examples: list[Example]) -> list[EncodedPrompt]:
    return [policy.encoder.encode(example) for example in examples]


def test_length_equals_the_number_of_encoded_tokens(
    policy: Policy, prompts: list[EncodedPrompt], examples: list[Example]
) -> None:
    assert [policy.encoder.length(example) for example in examples] == [len(prompt) for prompt in prompts]


def test_sampling_and_forward_agree_on_logprobs(policy: Policy, prompts: list[EncodedPrompt]) -> None:
    groups = LocalEngine(policy).generate(prompts, Sampling(10), [[2 * i, 2 * i + 1] for i in range(4)])
    completions = [completion for group in groups for completion in group]
    rows = [prompt for prompt in prompts for _ in range(2)]
    tokens = torch.zeros(8, 10, dtype=torch.long)
    mask = torch.zeros(8, 10, dtype=torch.bool)
    for row, completion in enumerate(completions):
        tokens[row, : len(completion.tokens)] = completion.tokens
        mask[row, : len(completion.tokens)] = True
    with torch.no_grad():
        values, _ = policy(rows, tokens, mask)
    sampled = torch.cat([completion.logprobs for completion in completions])
    torch.testing.assert_close(values[mask], sampled, rtol=0, atol=1e-5)


def test_completions_that_end_early_do_not_change_the_others(
    policy: Policy, prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy.model.generation_config, "eos_token_id", list(range(100, 160)))
    seeds = [list(range(i, i + 4)) for i in (0, 4, 8, 12)]
    groups = LocalEngine(policy).generate(prompts, Sampling(20), seeds)
    assert len({len(completion.tokens) for group in groups for completion in group}) > 3
    for prompt, group, own in zip(prompts, groups, seeds, strict=True):
        for completion, seed in zip(group, own, strict=True):
            ((alone,),) = LocalEngine(policy).generate([prompt], Sampling(20), [[seed]])
            assert completion.tokens.tolist() == alone.tokens.tolist()


@pytest.fixture
def greedy(policy: Policy) -> Iterator[Callable[[EncodedPrompt, int], Tensor]]:
    """Let transformers' own ``generate`` write the most probable tokens."""

    def generate(prompt: EncodedPrompt, count: int) -> Tensor:
        ids = prompt.input_ids.unsqueeze(0)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **prompt.vision}
        if prompt.token_types is not None:
            inputs[prompt.types_name] = prompt.token_types.unsqueeze(0)
        output: Tensor = policy.model.generate(
            **inputs, max_new_tokens=count, do_sample=False, suppress_tokens=policy.forbidden_ids
        )
        return output[0, ids.shape[1] :]

    yield generate
    # The model keeps the positions of its last call; no test may depend on them.
    if hasattr(policy.model.model, "rope_deltas"):
        policy.model.model.rope_deltas = None


def test_greedy_tokens_are_those_of_transformers_generate(
    policy: Policy, prompts: list[EncodedPrompt], greedy: Callable[[EncodedPrompt, int], Tensor]
) -> None:
    groups = LocalEngine(policy).generate(prompts, Sampling(16, temperature=0), [[0]] * len(prompts))
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        assert completion.tokens.tolist() == greedy(prompt, 16).tolist()


def test_a_batch_equals_each_row_alone(policy: Policy, prompts: list[EncodedPrompt]) -> None:
    tokens = torch.arange(30, 30 + 4 * 7).view(4, 7)
    mask = torch.arange(7) < torch.tensor([7, 2, 5, 6]).unsqueeze(1)
    with torch.no_grad():
        values, _ = policy(prompts, tokens, mask)
        for row in range(4):
            own, _ = policy(prompts[row : row + 1], tokens[row : row + 1], mask[row : row + 1])
            torch.testing.assert_close(values[row], own[0], rtol=0, atol=1e-5)


def test_the_qwen_families_share_prefixes_and_the_others_report_why_not(folder: Path) -> None:
    lines: list[str] = []
    policy = load_policy(PolicyConfig(model=str(folder)), say=lines.append)
    assert policy.shared_prefix == ("qwen" in policy.model.config.model_type)
    assert len(lines) == (not policy.shared_prefix)


def test_sharing_a_prefix_changes_neither_values_nor_gradients(
    policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    rows = [prompts[i] for i in (2, 0, 2, 3, 1, 2)]
    tokens = torch.arange(30, 30 + 6 * 7).view(6, 7)
    mask = torch.arange(7) < torch.tensor([7, 2, 5, 6, 1, 7]).unsqueeze(1)
    weight = policy.model.model.language_model.layers[0].mlp.up_proj.weight

    def found(shared: bool) -> tuple[Tensor, Tensor]:
        before, policy.shared_prefix = policy.shared_prefix, shared and policy.shared_prefix
        values, entropies = policy(rows, tokens, mask, True)
        policy.shared_prefix = before
        return values.detach(), torch.autograd.grad((values.sin() + entropies).sum(), [weight])[0]

    for one, other in zip(found(True), found(False), strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_the_gradient_reaches_the_language_model_alone(policy: Policy, prompts: list[EncodedPrompt]) -> None:
    policy.zero_grad()
    tokens = torch.arange(30, 30 + 4 * 5).view(4, 5)
    policy.train()
    values, entropies = policy(prompts, tokens, torch.ones_like(tokens, dtype=torch.bool), True)
    (values.sum() + entropies.sum()).backward()
    policy.eval()
    vision = {parameter for module in vision_modules(policy.model) for parameter in module.parameters()}
    assert vision
    for name, parameter in policy.named_parameters():
        if parameter in vision:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    policy.zero_grad()


def test_adapters_stay_out_of_the_vision_tower(folder: Path) -> None:
    adapted = load_policy(PolicyConfig.model_validate({"model": str(folder), "lora": {"rank": 2}}))
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert names
    assert all(".language_model.layers." in name and ".lora_" in name for name in names)


def test_merged_adapters_load_without_peft(folder: Path, tmp_path: Path, examples: list[Example]) -> None:
    adapted = load_policy(PolicyConfig.model_validate({"model": str(folder), "lora": {"rank": 2}}))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save(tmp_path / "out")
    again = load_policy(PolicyConfig(model=str(tmp_path / "out")))
    rows = [adapted.encoder.encode(example) for example in examples]
    tokens = torch.arange(30, 30 + 4 * 5).view(4, 5)
    with torch.no_grad():
        one, _ = adapted(rows, tokens, torch.ones_like(tokens, dtype=torch.bool))
        other, _ = again(rows, tokens, torch.ones_like(tokens, dtype=torch.bool))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_image_tokens_are_never_sampled(policy: Policy) -> None:
    assert policy.model.config.image_token_id in control_token_ids(policy.model)
    assert policy.model.config.image_token_id in policy.forbidden_ids


def test_pixel_limits_are_honoured_or_refused(folder: Path, examples: list[Example]) -> None:
    config = PolicyConfig(model=str(folder), max_pixels=64 * 64)
    if folder.name.startswith(("llava", "gemma3")):
        with pytest.raises(UserError, match="leave them out"):
            load_policy(config)
        return
    policy = load_policy(config)
    prompt = policy.encoder.encode(examples[1])
    images = policy.processor.image_processor
    assert prompt.vision["pixel_values"].shape[0] * images.patch_size**2 <= 64 * 64
