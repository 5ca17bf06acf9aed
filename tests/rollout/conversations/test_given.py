"""Completions that begin with given tokens: which do, what is their own, what they were drawn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import LocalEngine, Sampling, decoding
from mm_cpgd.rollout.conversations.given import BegunEngine, continued, given_tokens
from mm_cpgd.training.experience import pad_tokens

TEXT = "<think></think><answer>"
SEEDS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def begun(policy: Policy, **more: Any) -> BegunEngine:
    return BegunEngine(LocalEngine(policy), policy, TEXT, **more)


def test_the_second_half_of_each_group_has_the_beginning_and_it_is_not_its_own(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    given = given_tokens(tiny_policy, TEXT)
    whole = LocalEngine(tiny_policy).generate(prompts, Sampling(6), [own[:2] for own in SEEDS])
    for group, alone in zip(begun(tiny_policy).generate(prompts, Sampling(6), SEEDS), whole, strict=True):
        assert [one.tokens.tolist() for one in group[:2]] == [one.tokens.tolist() for one in alone]
        for one in group[2:]:
            assert one.tokens[: len(given)].tolist() == given.tolist()
            assert one.own.tolist() == [False] * len(given) + [True] * one.length
            assert not one.logprobs[: len(given)].any()
            assert one.text.startswith(TEXT)


def test_a_completion_depends_on_its_seed_alone(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    together = begun(tiny_policy).generate(prompts, Sampling(6), SEEDS)
    (alone,) = begun(tiny_policy).generate(prompts[2:], Sampling(6), SEEDS[2:])
    assert [one.tokens.tolist() for one in together[2]] == [one.tokens.tolist() for one in alone]


def test_the_answer_has_a_limit_of_its_own(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    for group in begun(tiny_policy, max_new_tokens=2).generate(prompts, Sampling(6), SEEDS):
        assert all(one.length <= 2 for one in group[2:])


def test_the_trainer_gives_the_answers_the_numbers_that_they_were_drawn_with(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    for prompt, group in zip(prompts, begun(tiny_policy).generate(prompts, Sampling(6), SEEDS), strict=True):
        tokens, mask = pad_tokens([one.tokens for one in group], [one.own for one in group])
        suffixes = [one.talk.suffix if one.talk else None for one in group]
        with torch.no_grad():
            found, _ = tiny_policy([prompt] * len(group), tokens, mask, suffixes=suffixes)
        drawn, _ = pad_tokens([one.logprobs for one in group])
        torch.testing.assert_close(found, drawn.float(), rtol=1e-4, atol=1e-4)


def test_a_prompt_that_several_cut_completions_continue_is_computed_once(
    tiny_policy: Policy, prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counting(model: Any, cache: Any, unique: Any, batch: Any, *rest: Any) -> Any:
        sizes.append(batch.layout.tokens)
        return hidden_states(model, cache, unique, batch, *rest)

    hidden_states = decoding.hidden_states
    monkeypatch.setattr(decoding, "hidden_states", counting)
    cuts = [torch.arange(20, 20 + count) for count in (3, 5)]
    rows = [continued(tiny_policy.model, prompts[0], cut) for cut in cuts]
    LocalEngine(tiny_policy).generate(rows, Sampling(2), [[1], [2]])
    assert sizes == [len(prompts[0]) + 3 + 5]


def test_an_odd_number_of_seeds_is_an_error(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    with pytest.raises(ValueError, match="even number"):
        begun(tiny_policy).generate(prompts[:1], Sampling(6), [[1, 2, 3]])
