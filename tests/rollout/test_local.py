"""Local engine: order, seeds, ends, limits, text and log-probabilities of completions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout import KeptTokens, LocalEngine, Sampling
from mm_cpgd.rollout.sampler import MAX_FINISHED_SHARE
from mm_cpgd.training.experience import pad_tokens
from tests.fakes.sampling import flat, sampled


def test_groups_come_in_the_order_of_prompts_and_seeds(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    groups = sampled(tiny_policy, prompts, [[1, 2], [3, 4], [1, 2]])
    again = sampled(tiny_policy, [prompts[2], prompts[0]], [[2, 1], [2, 1]])
    assert [len(group) for group in groups] == [2, 2, 2]
    assert groups[2][1].tokens.tolist() == again[0][0].tokens.tolist()
    assert groups[0][0].tokens.tolist() == again[1][1].tokens.tolist()


def test_a_seed_determines_a_completion_in_any_batch(
    tiny_policy: Policy, prompts: list[EncodedPrompt], many_ends: list[int]
) -> None:
    together = sampled(tiny_policy, prompts, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    for prompt, seeds, group in zip(prompts, ([1, 2, 3], [4, 5, 6], [7, 8, 9]), together, strict=True):
        for seed, completion in zip(seeds, group, strict=True):
            ((alone,),) = sampled(tiny_policy, [prompt], [[seed]])
            assert alone.tokens.tolist() == completion.tokens.tolist()
            assert (alone.text, alone.finished) == (completion.text, completion.finished)
            torch.testing.assert_close(alone.logprobs, completion.logprobs, rtol=0, atol=1e-5)


def test_batches_change_nothing(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    seeds = [[1, 2], [3, 4], [5, 6]]
    one = LocalEngine(tiny_policy, batch_prompts=1).generate(prompts, Sampling(8), seeds)
    two = LocalEngine(tiny_policy, batch_prompts=2).generate(prompts, Sampling(8), seeds)
    assert [c.tokens.tolist() for c in flat(one)] == [c.tokens.tolist() for c in flat(two)]


def test_other_seeds_give_other_completions(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    group = sampled(tiny_policy, prompts[:1], [list(range(20))])[0]
    assert len({tuple(completion.tokens.tolist()) for completion in group}) == 20


def test_a_longer_limit_continues_where_the_shorter_one_stopped(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    short = sampled(tiny_policy, prompts, [[1], [2], [3]], max_new_tokens=5)
    long = sampled(tiny_policy, prompts, [[1], [2], [3]], max_new_tokens=9)
    for one, other in zip(flat(short), flat(long), strict=True):
        assert one.tokens.tolist() == other.tokens[:5].tolist()


def test_an_end_token_ends_a_completion_and_belongs_to_it(
    tiny_policy: Policy, prompts: list[EncodedPrompt], many_ends: list[int]
) -> None:
    completions = flat(sampled(tiny_policy, prompts, [list(range(i, i + 8)) for i in (0, 8, 16)]))
    assert {completion.finished for completion in completions} == {True, False}
    for completion in completions:
        tokens = completion.tokens.tolist()
        assert not set(tokens[:-1]) & set(many_ends)
        assert completion.finished == (tokens[-1] in many_ends)
        assert completion.finished or len(tokens) == 12
        assert completion.logprobs.shape == completion.tokens.shape


def test_an_end_at_the_very_limit_is_an_end(
    tiny_policy: Policy, prompts: list[EncodedPrompt], many_ends: list[int]
) -> None:
    finished = [c for c in flat(sampled(tiny_policy, prompts, [list(range(16))] * 3)) if c.finished]
    limit = len(finished[0].tokens)
    again = flat(sampled(tiny_policy, prompts, [list(range(16))] * 3, max_new_tokens=limit))
    at_limit = [
        completion for completion in again if completion.tokens.tolist() == finished[0].tokens.tolist()
    ]
    assert at_limit
    assert all(completion.finished for completion in at_limit)


def test_text_is_the_tokens_without_control_tokens(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    for completion in flat(sampled(tiny_policy, prompts, [[1, 2], [3, 4], [5, 6]])):
        own = tiny_policy.tokenizer.decode(completion.tokens.tolist(), skip_special_tokens=True)
        assert completion.text == own
        assert "<|im_end|>" not in completion.text


def plain_logits(policy: Policy, prompt: EncodedPrompt) -> Tensor:
    """Compute the logits (V,) of the first completion token by transformers' own forward."""
    types = {} if prompt.token_types is None else {"mm_token_type_ids": prompt.token_types.unsqueeze(0)}
    with torch.no_grad():
        output = policy.model(input_ids=prompt.input_ids.unsqueeze(0), **types, **prompt.vision)
    logits: Tensor = output.logits[0, -1]
    return logits


def distribution(logits: Tensor, options: dict[str, float]) -> Tensor:
    """Compute the sampling distribution (V,) with one option for the cuts, token by token."""
    probabilities = (logits.double() / options.get("temperature", 1.0)).softmax(-1)
    order = probabilities.argsort(descending=True).tolist()
    kept, mass = [], 0.0
    for place, token in enumerate(order):
        probability = float(probabilities[token])
        if place == options.get("top_k", len(order)) or mass >= options.get("top_p", 1.0):
            break
        if probability < options.get("min_p", 0.0) * float(probabilities.max()):
            break
        kept.append(token)
        mass += probability
    cut = torch.zeros_like(probabilities)
    cut[kept] = probabilities[kept] / mass
    return cut


OPTIONS = [{"temperature": 0.3}, {"temperature": 2.5, "top_k": 50}, {"top_p": 0.5}, {"min_p": 0.3}]


@pytest.mark.parametrize("options", OPTIONS)
def test_logprobs_and_kept_tokens_are_those_of_the_sampling_distribution(
    tiny_policy: Policy, prompts: list[EncodedPrompt], options: dict[str, float]
) -> None:
    logits = plain_logits(tiny_policy, prompts[0])
    logits[tiny_policy.forbidden_ids] = -torch.inf
    wanted = distribution(logits, options)
    for completion in sampled(tiny_policy, prompts[:1], [list(range(6))], **options)[0]:
        expected = wanted[completion.tokens[0]].log().item()
        assert completion.logprobs[0].item() == pytest.approx(expected, abs=1e-5)
        if options == {"temperature": 0.3}:
            assert completion.kept is None
        else:
            assert completion.kept is not None
            assert completion.kept.counts.shape == (1, len(completion.tokens))
            first = completion.kept.ids[: int(completion.kept.counts[0, 0])]
            assert first.tolist() == wanted.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_trainers_logprobs_are_those_of_the_sampler(
    tiny_policy: Policy, prompts: list[EncodedPrompt], many_ends: list[int], options: dict[str, float]
) -> None:
    groups = sampled(tiny_policy, prompts, [[1, 2], [3, 4], [5, 6]], **options)
    completions = flat(groups)
    tokens, mask = pad_tokens([one.tokens for one in completions])
    of_rows = [prompt for prompt in prompts for _ in range(2)]
    kept = [one.kept for one in completions if one.kept]
    stacked = KeptTokens.stack(kept) if kept else None
    temperature = options.get("temperature", 1.0)
    logprobs, entropy = tiny_policy(of_rows, tokens, mask, False, temperature, stacked)
    for row, values, entropies in zip(completions, logprobs, entropy, strict=True):
        count = len(row.tokens)
        torch.testing.assert_close(values[:count], row.logprobs, rtol=0, atol=2e-5)
        assert not values[count:].any()
        assert (entropies[:count] >= 0).all()
    if stacked:
        sampling = Sampling(12, **options)  # type: ignore[arg-type]
        found = tiny_policy.kept_tokens(of_rows, tokens, mask, sampling)
        assert torch.equal(found.counts, stacked.counts)
        assert torch.equal(found.ids, stacked.ids)


def test_first_tokens_follow_their_distribution(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    count = 4000
    group = sampled(tiny_policy, prompts[:1], [list(range(count))], max_new_tokens=1)[0]
    logits = plain_logits(tiny_policy, prompts[0])
    logits[tiny_policy.forbidden_ids] = -torch.inf
    wanted = count * logits.double().softmax(-1)
    observed = torch.bincount(torch.cat([completion.tokens for completion in group]), minlength=len(wanted))
    # Tokens in the order of the vocabulary, in cells of at least 20 expected draws.
    cell = (wanted.cumsum(0) / 25).long()
    wanted = torch.zeros(int(cell.max()) + 1, dtype=torch.float64).index_add_(0, cell, wanted)
    observed_in_cells = torch.zeros_like(wanted).index_add_(0, cell, observed.double())
    full = wanted > 5
    statistic = float(((observed_in_cells - wanted)[full] ** 2 / wanted[full]).sum())
    freedom = int(full.sum()) - 1
    # Mean k and standard deviation sqrt(2k): four of them are 1 in 10,000.
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.fixture
def favoured_image_tokens(tiny_policy: Policy) -> Iterator[list[int]]:
    """Make image tokens by far the most probable ones."""
    forbidden = tiny_policy.forbidden_ids

    def raise_them(module: Any, inputs: Any, logits: Tensor) -> Tensor:
        return logits.index_add(
            -1, torch.tensor(forbidden), torch.full((*logits.shape[:-1], len(forbidden)), 50.0)
        )

    handle = tiny_policy.model.get_output_embeddings().register_forward_hook(raise_them)
    yield forbidden
    handle.remove()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_image_tokens_are_never_sampled(
    tiny_policy: Policy, prompts: list[EncodedPrompt], favoured_image_tokens: list[int], temperature: float
) -> None:
    assert len(favoured_image_tokens) == 4
    completions = flat(sampled(tiny_policy, prompts, [[1, 2], [3, 4], [5, 6]], temperature=temperature))
    for completion in completions:
        assert not set(completion.tokens.tolist()) & set(favoured_image_tokens)
        # Nor have they a share of the probability, which is nearly all of it by their logits.
        assert (completion.logprobs > -20).all()


def test_greedy_ignores_the_seed(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    one, other = sampled(tiny_policy, prompts[:1], [[1, 2]], temperature=0)[0]
    assert one.tokens.tolist() == other.tokens.tolist()


def test_sampling_in_training_mode_with_gradient_checkpointing_changes_nothing(
    tiny_folder: Path, tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder), gradient_checkpointing=True)).train()
    usual = sampled(tiny_policy, prompts, [[1], [2], [3]])
    group = sampled(policy, prompts, [[1], [2], [3]])
    assert [c.tokens.tolist() for c in flat(group)] == [c.tokens.tolist() for c in flat(usual)]
    assert policy.training
    assert policy.model.training


def test_finished_completions_are_removed_from_the_batch(
    tiny_policy: Policy, prompts: list[EncodedPrompt], many_ends: list[int], token_counts: list[int]
) -> None:
    seeds = [list(range(i, i + 8)) for i in (0, 8, 16)]
    lengths = [len(c.tokens) for c in flat(sampled(tiny_policy, prompts, seeds))]
    assert len(set(lengths)) > 4
    needed = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert len(token_counts[1:]) == len(needed)
    assert all(
        need <= given <= need / (1 - MAX_FINISHED_SHARE)
        for need, given in zip(needed, token_counts[1:], strict=True)
    )


def test_no_prompts_give_no_groups(tiny_policy: Policy) -> None:
    assert sampled(tiny_policy, [], []) == []


def test_unequal_groups_are_an_error_that_shows_the_counts(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        sampled(tiny_policy, prompts[:2], [[1, 2], [3]])
    with pytest.raises(ValueError, match="3 prompts"):
        sampled(tiny_policy, prompts, [[1], [2]])


def test_updates_of_the_weights_take_effect_immediately(
    tiny_folder: Path, prompts: list[EncodedPrompt]
) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    engine = LocalEngine(policy)
    before = engine.generate(prompts[:1], Sampling(4), [[1]])[0][0]
    with torch.no_grad():
        policy.model.model.language_model.norm.weight.mul_(0.5)
    engine.load_weights(policy)
    after = engine.generate(prompts[:1], Sampling(4), [[1]])[0][0]
    assert before.logprobs[0] != after.logprobs[0]
