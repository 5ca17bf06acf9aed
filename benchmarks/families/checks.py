"""Checks of what training and sampling need of a family, each against another way to the same numbers.

A check returns if the family passes, and raises an error if it does not.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.families.subject import LENGTHS, Subject, completions, expect, noise_image, same
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.families import control_token_ids, image_token_id, language_model, vision_parameters
from mm_cpgd.policy.sharding.fsdp2 import ShardSettings, shard_policy
from mm_cpgd.rollout import Completion, LocalEngine, Sampling

# Largest difference of log-probabilities in float32, in nats.
TOLERANCE = 2e-5


def encode(subject: Subject) -> None:
    """Every image has tokens, none of which is ever sampled; lengths need no encoding, encoding no model."""
    policy = subject.policy
    token = image_token_id(policy.model.config)
    expect(token in control_token_ids(policy.model), f"image token {token} can be sampled")
    expect(token in policy.forbidden_ids, f"image token {token} can be sampled")
    counts = [int((prompt.input_ids == token).sum()) for prompt in subject.prompts]
    expect(all(counts[:3]) and not counts[3], f"image tokens: {counts}")
    lengths = [policy.encoder.length(example) for example in subject.examples]
    same(lengths, [len(prompt) for prompt in subject.prompts], "length of prompt")
    # As in the processes of ``data.workers``.
    sent = pickle.loads(pickle.dumps(policy.encoder.without_model()))
    inputs = [sent.inputs(example)["input_ids"][0].tolist() for example in subject.examples]
    same(inputs, [prompt.input_ids.tolist() for prompt in subject.prompts], "tokens of prompt")


def sample(subject: Subject) -> None:
    """Greedy tokens are those of ``generate``; a completion does not depend on those that end before it."""
    policy = subject.policy
    wanted = subject.greedy_by_transformers(policy, 16)
    pairs = [pair for pair in zip(subject.greedy(policy, 16), wanted, strict=True) if pair[1] is not None]
    expect(pairs, "nothing to compare with")
    same(*zip(*pairs, strict=True), "greedy tokens of prompt")
    seeds = [list(range(i, i + 4)) for i in (0, 4, 8, 12)]
    with _many_ends(policy):
        groups = LocalEngine(policy).generate(subject.prompts, Sampling(12), seeds)
        expect(len({len(one.tokens) for group in groups for one in group}) > 3, "all lengths are equal")
        for prompt, group, own in zip(subject.prompts, groups, seeds, strict=True):
            alone = [
                LocalEngine(policy).generate([prompt], Sampling(12), [[seed]])[0][0] for seed in own[1:3]
            ]
            same([_ids(one) for one in group[1:3]], [_ids(one) for one in alone], "tokens of completion")


def logprobs(subject: Subject) -> None:
    """Log-probabilities depend on the image, not on the other rows, and are those that sampling reports."""
    tokens, mask = completions()
    with torch.no_grad():
        for row, length in enumerate(LENGTHS):
            one = slice(row, row + 1)
            own, _ = subject.policy(subject.prompts[one], tokens[one, :length], mask[one, :length])
            close(subject.logprobs[row, :length], own[0])
    other = subject.policy.encoder.encode(replace(subject.examples[0], images=(noise_image(112, 112, 9),)))
    with torch.no_grad():
        moved, _ = subject.policy([other], tokens[:1], mask[:1])
    expect((moved - subject.logprobs[:1]).abs().max() > 10 * TOLERANCE, "the image changes nothing")
    groups = LocalEngine(subject.policy).generate(subject.prompts, Sampling(6), [[1], [2], [3], [4]])
    sampled = [completion for (completion,) in groups]
    _compare_with_sampling(subject, sampled)


def backward(subject: Subject) -> None:
    """The gradient reaches every weight of the language model, and none of a frozen vision tower."""
    policy = subject.load()
    backward_of(subject, policy)
    vision = set(vision_parameters(policy.model))
    expect(vision, "no vision tower found")
    head = policy.model.get_output_embeddings()
    inside = {*language_model(policy.model).parameters(), *head.parameters()}
    known = vision | inside
    others = [name for name, parameter in policy.named_parameters() if parameter not in known]
    expect(not others, f"neither of the language model nor of the vision tower: {others}")
    for name, parameter in policy.named_parameters():
        if parameter in vision:
            expect(parameter.grad is None, f"{name} has a gradient")
        else:
            expect(parameter.grad is not None, f"{name} has no gradient")
            expect(parameter.grad.isfinite().all(), f"the gradient of {name} is not finite")


def vision(subject: Subject) -> None:
    """With ``policy.freeze_vision=false`` the gradient reaches the vision tower and its projector."""
    policy = subject.load(freeze_vision=False)
    backward_of(subject, policy)
    found = {p: p.grad is not None and bool(p.grad.any()) for p in vision_parameters(policy.model)}
    share = sum(p.numel() for p, moved in found.items() if moved) / sum(p.numel() for p in found)
    # A head of the tower that the family does not use, and rows of positions that no image has.
    expect(share > 0.5, f"{share:.0%} of the vision tower have a gradient")


def save(subject: Subject) -> None:
    """A saved policy loads completely, with the same weights."""
    folder = subject.new_folder()
    subject.policy.save(folder)
    again = load_policy(PolicyConfig(model=str(folder)))
    close(subject.logprobs_of(again), subject.logprobs)


def sharded(subject: Subject) -> None:
    """FSDP2 wraps the family: values, gathered weights and saved files are those of the whole model."""
    with _one_process(subject):
        policy = subject.load()
        gathered = shard_policy(policy, ShardSettings(), torch.device("cpu"), reference=False)
        close(subject.logprobs_of(policy), subject.logprobs)
        backward_of(subject, policy)
        close(subject.logprobs_of(gathered.gather()), subject.logprobs)
        gathered.release()
        folder = subject.new_folder()
        policy.save(folder)
    close(subject.logprobs_of(load_policy(PolicyConfig(model=str(folder)))), subject.logprobs)


def shared_prefix(subject: Subject) -> None:
    """Completions share their prompt's pass, without a change of values."""
    expect(subject.policy.shared_prefix, "completions do not share their prompt's pass")
    separate = subject.load()
    separate.shared_prefix = False
    close(subject.logprobs_of(separate), subject.logprobs)


def close(found: Tensor, wanted: Tensor) -> None:
    """Raise an AssertionError unless two tensors agree within ``TOLERANCE``."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


def backward_of(subject: Subject, policy: Policy) -> None:
    """Differentiate log-probabilities and entropies of the subject's rows, in training mode."""
    policy.train()
    values, entropies = policy(subject.prompts, *completions(), True)
    (values.sin() + entropies).sum().backward()
    policy.eval()


def _compare_with_sampling(subject: Subject, sampled: list[Completion]) -> None:
    width = max(len(one.tokens) for one in sampled)
    tokens = torch.zeros(len(sampled), width, dtype=torch.long)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, one in enumerate(sampled):
        tokens[row, : len(one.tokens)] = one.tokens
        mask[row, : len(one.tokens)] = True
    with torch.no_grad():
        values, _ = subject.policy(subject.prompts, tokens, mask)
    close(values[mask], torch.cat([one.logprobs for one in sampled]))


def _ids(completion: Completion) -> list[int]:
    return completion.tokens.tolist()


@contextmanager
def _many_ends(policy: Policy) -> Iterator[None]:
    """Let a tenth of the vocabulary end completions."""
    settings: Any = policy.model.generation_config
    before = settings.eos_token_id
    settings.eos_token_id = list(range(100, 160))
    try:
        yield
    finally:
        settings.eos_token_id = before


@contextmanager
def _one_process(subject: Subject) -> Iterator[None]:
    """Be the only process of a group."""
    file = subject.new_folder() / "rendezvous"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
