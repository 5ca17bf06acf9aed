"""Forward pass of the policy: the values of a row do not depend on the rest of the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data import Example, ImageRef
from mm_cpgd.policy import EncodedPrompt, Policy

LENGTHS = (5, 9, 1, 12)


def padded(lengths: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, 250, (len(lengths), max(lengths)), generator=generator)
    return tokens, torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def alone(policy: Policy, prompt: EncodedPrompt, completion: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log-probabilities and entropies of one row by transformers' own forward and positions."""
    ids = torch.cat([prompt.input_ids, completion]).unsqueeze(0)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **prompt.vision}
    if prompt.token_types is not None and prompt.vision:
        types = torch.zeros_like(ids)
        types[0, : len(prompt)] = prompt.token_types
        inputs["mm_token_type_ids"] = types
    with torch.no_grad():
        logits = policy.model(**inputs).logits[0, len(prompt) - 1 : -1]
    allowed = [token for token in range(logits.shape[-1]) if token not in policy.forbidden_ids]
    probabilities = logits.double()[:, allowed].softmax(-1)
    places = torch.tensor([allowed.index(token) for token in completion.tolist()])
    own = probabilities[torch.arange(len(completion)), places].log()
    return own.float(), -(probabilities * probabilities.log()).sum(-1).float()


@pytest.fixture(scope="module")
def prompts(tiny_policy: Policy, examples: list[Example]) -> list[EncodedPrompt]:
    return [tiny_policy.encoder.encode(example) for example in examples]


def test_a_batch_equals_transformers_forward_of_each_row_alone(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    tokens, mask = padded(LENGTHS)
    with torch.no_grad():
        values, entropies = tiny_policy(prompts, tokens, mask)
    for row, length in enumerate(LENGTHS):
        wanted = alone(tiny_policy, prompts[row], tokens[row, :length])
        torch.testing.assert_close(values[row, :length], wanted[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(entropies[row, :length], wanted[1], rtol=0, atol=1e-5)


def test_the_order_of_rows_does_not_matter(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    tokens, mask = padded(LENGTHS)
    order = [2, 0, 3, 1]
    with torch.no_grad():
        values, _ = tiny_policy(prompts, tokens, mask)
        shuffled, _ = tiny_policy([prompts[i] for i in order], tokens[order], mask[order])
    torch.testing.assert_close(shuffled, values[order], rtol=0, atol=1e-5)


def test_tokens_after_a_completion_do_not_matter(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    tokens, mask = padded(LENGTHS)
    with torch.no_grad():
        values, entropies = tiny_policy(prompts, tokens, mask)
        other, _ = tiny_policy(prompts, tokens.masked_fill(~mask, 7), mask)
    assert torch.equal(values, other)
    assert not values[~mask].any()
    assert not entropies[~mask].any()


def test_the_image_matters(
    tiny_policy: Policy, examples: list[Example], noise_image: Callable[..., ImageRef]
) -> None:
    other = Example("other", examples[0].question, "3", images=(noise_image(112, 112, 9),))
    tokens, mask = padded((6, 6))
    tokens[1] = tokens[0]
    with torch.no_grad():
        values, _ = tiny_policy([tiny_policy.encoder.encode(e) for e in (examples[0], other)], tokens, mask)
    assert (values[0] - values[1]).abs().max() > 1e-3


def test_rows_without_completion_give_zeros_and_a_gradient_of_zero(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    values, entropies = tiny_policy(
        prompts[:2], torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3).bool()
    )
    assert not values.any()
    assert not entropies.any()
    weight = tiny_policy.model.model.language_model.layers[0].mlp.up_proj.weight
    (gradient,) = torch.autograd.grad(values.sum(), [weight])
    assert not gradient.any()


def test_gradients_of_a_batch_are_the_sum_of_its_rows(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    tokens, mask = padded(LENGTHS)
    weight = tiny_policy.model.model.language_model.layers[1].self_attn.q_proj.weight

    def gradient(rows: list[int]) -> Tensor:
        values, _ = tiny_policy([prompts[i] for i in rows], tokens[rows], mask[rows])
        return torch.autograd.grad(values.sum(), [weight])[0]

    whole = gradient([0, 1, 2, 3])
    parts = sum((gradient([row]) for row in range(4)), torch.zeros_like(whole))
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)


def test_the_reference_does_not_change_when_the_policy_is_updated(
    tiny_folder: Any, prompts: list[EncodedPrompt]
) -> None:
    from mm_cpgd.config.schema import PolicyConfig
    from mm_cpgd.policy import load_policy

    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    tokens, mask = padded((4,))
    with torch.no_grad():
        before, _ = policy(prompts[:1], tokens, mask)
        policy.keep_reference()
        policy.model.model.language_model.norm.weight.mul_(0.5)
        after, _ = policy(prompts[:1], tokens, mask)
        with policy.as_reference() as reference:
            kept, _ = reference(prompts[:1], tokens, mask)
    assert torch.equal(kept, before)
    assert not torch.allclose(after, before)
    assert not any(parameter.requires_grad for parameter in policy.reference.parameters())
    # An optimizer or a checkpoint of the policy must not see the reference.
    assert len(list(policy.parameters())) == len(list(policy.model.parameters()))


def test_a_saved_config_does_not_name_the_attention(tiny_policy: Policy, tmp_path: Path) -> None:
    tiny_policy.save(tmp_path / "out")
    assert "mm_cpgd" not in (tmp_path / "out" / "config.json").read_text()
