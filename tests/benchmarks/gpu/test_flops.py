"""Counted operations of an update equal those that torch counts while it runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.flops import layer_weights, triangle, update_flops
from benchmarks.gpu.policies import build, encode, experience_of
from benchmarks.gpu.settings import CPU
from mm_cpgd.policy.shared_prefix.choice import forced

LENGTHS = [[9, 9], [9, 9]]


def test_the_operations_are_those_that_torch_counts() -> None:
    policy = build("tiny", CPU, lora=False, checkpointing=False)
    prompts = encode(policy, CPU, 2)
    policy.vision_cache.encode(prompts)
    batch = experience_of(prompts, LENGTHS).select(torch.arange(4))
    text = policy.model.config.get_text_config()
    for layer in policy.model.model.language_model.layers:
        layer.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    counter = FlopCounterMode(display=False)
    with forced("plain"), counter:
        values, _ = policy(batch.prompts, batch.tokens, batch.mask)
        values.sum().backward()
    sizes = [len(prompt) for prompt in prompts]
    wanted = update_flops(text, sizes, LENGTHS, trained=True, shared=True)
    head = text.hidden_size // text.num_attention_heads
    per_pair = 12 * text.num_hidden_layers * text.hidden_size
    tokens = sum(sizes) + 4 * 8
    pairs = sum(triangle(size) + 2 * (8 * size + triangle(8)) for size in sizes)
    projections = text.hidden_size * head * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    # Attention and its projections are taken out of the model: torch counts masked pairs too.
    wanted -= per_pair * pairs + 6 * text.num_hidden_layers * projections * tokens
    assert counter.get_total_flops() == pytest.approx(wanted, rel=0.01)


def test_without_sharing_every_completion_pays_for_its_prompt() -> None:
    text = build("tiny", CPU, lora=False).model.config.get_text_config()
    separate = update_flops(text, [100], [[50, 30]], trained=True, shared=False)
    alone = [update_flops(text, [100], [[length]], trained=True, shared=True) for length in (50, 30)]
    assert separate == sum(alone)


def test_frozen_weights_need_no_gradient() -> None:
    text = build("tiny", CPU, lora=False).model.config.get_text_config()
    trained, frozen = (update_flops(text, [100], [[50]], trained=one, shared=True) for one in (True, False))
    # One token of attention is 12 operations for each of head · size; the rest has two passes of three.
    attention = 12 * text.num_hidden_layers * text.hidden_size * (triangle(100) + 49 * 100 + triangle(49))
    assert (frozen - attention) / (trained - attention) == pytest.approx(2 / 3)


def test_the_layers_of_a_shape_have_its_published_weights() -> None:
    from benchmarks.performance.models import config_of

    # 3.09 billion weights without the vision tower, of which 311 million are the embedding.
    assert layer_weights(config_of("3b").get_text_config()) == pytest.approx(2.77e9, rel=0.01)
