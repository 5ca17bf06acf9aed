"""Attention of vision towers: one call for all images and windows of a length, with transformers' values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.families.build import FAMILIES, absence
from benchmarks.families.subject import Subject
from mm_cpgd.policy import collate_prompts
from mm_cpgd.policy.families import vision_modules
from mm_cpgd.policy.visual.attention import NAME, attention

SEGMENTED = (
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe",
    "kimi_k25", "minicpmv4_6", "minicpmv4_7",
)  # fmt: skip


@contextmanager
def _by(model: Any, name: str) -> Iterator[None]:
    """Let the vision tower use this attention within the ``with`` block."""
    configs = [m.config for tower in vision_modules(model) for m in tower.modules() if hasattr(m, "config")]
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = name
    try:
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            config._attn_implementation = own


@pytest.mark.parametrize("name", SEGMENTED)
def test_a_tower_has_the_values_and_gradients_of_transformers_own_attention(
    name: str, tiny_folder: Path, tmp_path: Path
) -> None:
    if reason := absence(name):
        pytest.skip(reason)
    subject = Subject(name, tiny_folder, tmp_path)
    policy = subject.load(freeze_vision=False)
    # Some versions of transformers take images of one size only for these.
    prompts = subject.prompts[:1] if name.startswith("minicpm") else subject.prompts
    batch = collate_prompts(prompts, policy.pad_id)
    tower = vision_modules(policy.model)[0]

    def found() -> tuple[Tensor, Tensor]:
        policy.zero_grad()
        logits = policy.model(**batch).logits
        logits.square().mean().backward()
        grads = [p.grad.flatten() for p in tower.parameters() if p.grad is not None]
        return logits.detach(), torch.cat(grads)

    names = {m.config._attn_implementation for m in tower.modules() if hasattr(m, "scaling")}
    assert names == {NAME}
    logits, gradient = found()
    with _by(policy.model, "sdpa"):
        expected_logits, expected_gradient = found()
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", sorted({*FAMILIES} - {*SEGMENTED}))
def test_towers_of_other_kinds_keep_their_attention(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    if reason := absence(name):
        pytest.skip(reason)
    policy = Subject(name, tiny_folder, tmp_path).policy
    modules = (module for tower in vision_modules(policy.model) for module in tower.modules())
    configs = [module.config for module in modules if hasattr(module, "config")]
    assert NAME not in {config._attn_implementation for config in configs}


def test_segments_of_a_length_are_computed_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    product = torch.nn.functional.scaled_dot_product_attention

    def counted(query: Tensor, *others: Tensor, **options: Any) -> Tensor:
        shapes.append(tuple(query.shape))
        return product(query, *others, **options)

    monkeypatch.setattr("mm_cpgd.policy.visual.attention.scaled_dot_product_attention", counted)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 13, 8)
    ends = torch.tensor([0, 4, 4, 7, 11, 13])
    out, _ = attention(None, query, key, value, None, cu_seq_lens_q=ends, scaling=0.5)
    assert sorted(shapes) == [(1, 2, 2, 8), (1, 2, 3, 8), (2, 2, 4, 8)]
    for first, last in ((0, 4), (4, 7), (7, 11), (11, 13)):
        own = slice(first, last)
        alone = product(query[:, :, own], key[:, :, own], value[:, :, own], scale=0.5)
        torch.testing.assert_close(out[:, own], alone.transpose(1, 2))
