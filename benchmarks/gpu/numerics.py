"""Section "numerics": values and gradients of each attention kernel, beside those in float32.

The reference is computed in float32 from separate rows, with the weights that the reduced precision has too.
A kernel is good enough if it is no further from it than separate rows in the same precision are. On a CPU
the reduced precision is autocast to bfloat16.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.gpu.policies import build, device, encode, experience_of, installed, memory_limit_noted
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings

if TYPE_CHECKING:
    from mm_cpgd.policy import Policy
    from mm_cpgd.training.experience import Experience

PROMPTS, COMPLETIONS = 2, 4
# Layers whose gradients are compared: first, middle and last.
PARTS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight", "down_proj.weight")


class Found:
    """Log-probabilities and entropies of the completions' tokens (M,), and gradients of some weights."""

    def __init__(self, policy: Policy, experience: Experience, *, shared: bool) -> None:
        policy.shared_prefix = shared
        values: list[Tensor] = []
        for rows in [torch.arange(len(experience))] if shared else torch.arange(len(experience)).split(1):
            batch = experience.select(rows)
            found = policy(batch.prompts, batch.tokens, batch.mask, True)
            weights = batch.advantages.to(found[0].device).unsqueeze(1)
            (weights * (found[0] + 0.1 * found[1])).sum().backward()
            values.append(torch.stack(found)[:, batch.mask].detach().double().cpu())
        self.logprobs, self.entropies = torch.cat(values, 1)
        self.gradients = {
            n: p.grad.double().cpu() for n, p in policy.named_parameters() if p.grad is not None
        }
        policy.zero_grad(set_to_none=True)


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield a row for separate rows, and one for each kernel that works here."""
    from mm_cpgd.policy.shared_prefix.choice import forced, working

    policy = build(settings.shapes[0], settings, lora=False)
    _train_some(policy)
    prompts = encode(policy, settings, PROMPTS)
    experience = experience_of(prompts, _lengths(settings.completion_tokens))
    exact = copy.deepcopy(policy.model).float()
    policy.model, reduced = exact, policy.model
    policy.vision_cache.model = exact
    wanted = Found(policy, experience, shared=False)
    yield {"tokens": len(wanted.logprobs), "attention": "float32, separate rows"}
    if device() == "cpu":
        yield _compare("float32, shared prefix", Found(policy, experience, shared=True), wanted)
    policy.model = policy.vision_cache.model = reduced
    for prompt in prompts:
        prompt.vision_features = None
    del exact
    with torch.autocast(device(), torch.bfloat16):
        others = ("eager", *(() if installed("flash_attn") else ("flash_attention_2",)))
        with _separate(policy, "sdpa"):
            yield _measured("separate rows, sdpa", policy, experience, wanted, shared=False)
        for name in working(device(), torch.bfloat16, _head(policy)):
            with forced(name):
                yield _measured(f"shared prefix, {name}", policy, experience, wanted, shared=True)
        for name in others:
            with _separate(policy, name):
                yield _measured(f"separate rows, {name}", policy, experience, wanted, shared=False)


@contextlib.contextmanager
def _separate(policy: Policy, name: str) -> Iterator[None]:
    """Let separate rows use this attention of transformers' within the ``with`` block."""
    config = policy.model.model.language_model.config
    before, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = before


def _measured(name: str, policy: Policy, experience: Experience, wanted: Found, *, shared: bool) -> Row:
    row: Row = {"tokens": len(wanted.logprobs), "attention": f"bfloat16, {name}"}
    with memory_limit_noted(row):
        row = _compare(row["attention"], Found(policy, experience, shared=shared), wanted)
    return row


def _compare(name: str, found: Found, wanted: Found) -> Row:
    gradient = torch.cat(
        [(found.gradients[key] - value).flatten() for key, value in wanted.gradients.items()]
    )
    size = torch.cat([value.flatten() for value in wanted.gradients.values()]).norm()
    logprobs, entropies = found.logprobs - wanted.logprobs, found.entropies - wanted.entropies
    return {
        "tokens": len(wanted.logprobs),
        "attention": name,
        "log-prob, mean error": float(logprobs.abs().mean()),
        "log-prob, largest": float(logprobs.abs().max()),
        "entropy, mean error": float(entropies.abs().mean()),
        "gradient, relative error": float(gradient.norm() / size),
    }


def _train_some(policy: Policy) -> None:
    """Let the first, the middle and the last layer get gradients, and nothing else."""
    layers = policy.model.model.language_model.layers
    chosen = {id(p) for i in (0, len(layers) // 2, len(layers) - 1) for p in layers[i].parameters()}
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(id(parameter) in chosen and name.endswith(PARTS))


def _lengths(tokens: int) -> list[list[int]]:
    """Return completions of different lengths, the longest of them twice."""
    return [[max(1, tokens * (k + 1) // COMPLETIONS) for k in range(COMPLETIONS)] for _ in range(PROMPTS)]


def _head(policy: Policy) -> int:
    from benchmarks.gpu.flops import head_size

    text: Any = policy.model.config.get_text_config()
    return head_size(text)
