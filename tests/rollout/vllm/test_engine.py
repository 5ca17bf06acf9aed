"""vLLM engine on fakes with vLLM's interfaces: completions, prompts and weights; no GPU is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from data import Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import DataError, UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout import Completion, LocalEngine
from mm_cpgd.rollout.vllm import VllmEngine
from tests.fakes.vllm import SAMPLING, colocated
from tests.fakes.vllm_server import served


@pytest.fixture(params=[colocated, served])
def engine(request: pytest.FixtureRequest, tiny_policy: Policy) -> Iterator[tuple[VllmEngine, Any]]:
    made = request.param(tiny_policy)
    yield made
    made[0].close()
    if request.param is served:
        made[1].kill()


def test_groups_come_in_the_order_of_prompts_and_seeds(
    engine: tuple[VllmEngine, Any], vllm_prompts: list[EncodedPrompt]
) -> None:
    groups = engine[0].generate(vllm_prompts, SAMPLING, [[2, 3], [4, 5, 6]])
    first = [[completion.tokens[0].item() for completion in group] for group in groups]
    assert first == [[42, 43], [44, 45, 46]]


def test_images_are_sent_with_their_prompt_in_the_order_of_the_text(
    engine: tuple[VllmEngine, Any], vllm_prompts: list[EncodedPrompt]
) -> None:
    # The fake tokenizes prompts by the processor; another order of these two images gives other tokens.
    groups = engine[0].generate(vllm_prompts, SAMPLING, [[2], [2]])
    assert [group[0].tokens[1].item() for group in groups] == [52, 50]


def test_a_completion_has_tokens_text_logprobs_and_its_end(
    engine: tuple[VllmEngine, Any], vllm_prompts: list[EncodedPrompt], tiny_policy: Policy
) -> None:
    ended, cut = engine[0].generate(vllm_prompts[1:], SAMPLING, [[4, 7]])[0]
    end = tiny_policy.end_ids[0]
    assert ended.tokens.tolist() == [44, 50, end]
    assert ended.logprobs.tolist() == [-0.5, -1.0, -4.0]
    assert (ended.finished, cut.finished) == (True, False)
    assert ended.text == tiny_policy.tokenizer.decode([44, 50])


def test_completions_have_the_types_of_the_local_engine(
    engine: tuple[VllmEngine, Any], vllm_prompts: list[EncodedPrompt], tiny_policy: Policy
) -> None:
    def kinds(completion: Completion) -> list[Any]:
        return [
            completion.tokens.dtype,
            completion.logprobs.dtype,
            type(completion.text),
            type(completion.finished),
        ]

    here = LocalEngine(tiny_policy).generate(vllm_prompts, SAMPLING, [[1], [2]])
    there = engine[0].generate(vllm_prompts, SAMPLING, [[1], [2]])
    assert kinds(there[0][0]) == kinds(here[0][0])


def test_a_different_tokenization_of_the_prompt_is_rejected(
    engine: tuple[VllmEngine, Any], vllm_prompts: list[EncodedPrompt]
) -> None:
    engine[1].model.spoil = lambda ids: [*ids[:5], 7, *ids[6:], 9]
    with pytest.raises(UserError, match="first difference at token 5;"):
        engine[0].generate(vllm_prompts[1:], SAMPLING, [[1]])


def test_weights_arrive_complete_and_the_prefix_cache_is_reset(
    engine: tuple[VllmEngine, Any], tiny_policy: Policy
) -> None:
    engine[0].load_weights(tiny_policy)
    arrived = engine[1].model.weights
    expected = dict(tiny_policy.model.named_parameters())
    assert arrived.keys() == expected.keys()
    assert all(torch.equal(arrived[name], expected[name]) for name in expected)
    assert "reset_prefix_cache" in engine[1].calls


def test_a_prompt_whose_image_has_vanished_gets_no_completions(
    engine: tuple[VllmEngine, Any], vllm_prompts: list[EncodedPrompt], tiny_policy: Policy
) -> None:
    def gone() -> Any:
        raise DataError("no such file")

    there = Example("1", "<image>?", "3", images=(ImageRef("a file", lambda: Image.new("RGB", (56, 56))),))
    prompt = tiny_policy.encoder.encode(there)
    conversation = replace(prompt.conversation, images=(ImageRef("a file", gone),))
    lost = replace(prompt, conversation=conversation)
    groups = engine[0].generate([lost, vllm_prompts[1]], SAMPLING, [[2, 3], [2, 3]])
    assert [len(group) for group in groups] == [0, 2]


def test_an_update_is_sent_by_the_next_load(engine: tuple[VllmEngine, Any], tiny_folder: Any) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    engine[0].load_weights(policy)
    name, parameter = next(iter(policy.model.named_parameters()))
    before = engine[1].model.weights[name]
    with torch.no_grad():
        parameter.add_(1.0)
    engine[0].load_weights(policy)
    torch.testing.assert_close(engine[1].model.weights[name], before + 1.0)


def test_every_completion_has_the_seed_that_was_given(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy)
    engine.generate(vllm_prompts, SAMPLING, [[3, 1], [4, 1]])
    assert [params.seed for params in llm.params] == [3, 1, 4, 1]
