"""All families: encoding, sampling, log-probabilities and gradients agree with transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.families import control_token_ids, vision_modules
from mm_cpgd.rollout import LocalEngine, Sampling
from tests.fakes.families import FAMILIES, build_family


@pytest.fixture(scope="module", params=FAMILIES)
def folder(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return build_family(request.param, tiny_folder, tmp_path_factory.mktemp(request.param))


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
    torch.manual_seed(0)
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
