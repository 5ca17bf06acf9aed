"""vLLM engine on a fake: prompts that end with sampled tokens are sent as tokens, with all images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from data import ImageRef
from mm_cpgd.errors import DataError, EngineFailed, UserError
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt, extend
from mm_cpgd.rollout.conversations.given import BegunEngine, given_tokens
from tests.fakes.conversations import Scripted, rows_of, scripts, scripts_about_videos
from tests.fakes.vllm import SAMPLING, colocated
from tests.fakes.vllm_server import TOKENS, running, served


def continued(policy: Policy, scripted: Sequence[Scripted]) -> list[ContinuedPrompt]:
    rows = rows_of(policy, scripted)
    found = []
    for number, (prompt, suffix) in enumerate(zip(rows.prompts, rows.suffixes, strict=True)):
        assert suffix is not None
        length = int(rows.mask[number].nonzero().max()) + 1
        seen = [image for observed in scripted[number].observations for m in observed for image in m.images]
        found.append(replace(extend(prompt, rows.tokens[number, :length], suffix), images=tuple(seen)))
    return found


def test_tokens_and_images_arrive_as_the_policy_has_them(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    scripted = [scripts(noise_image)[place] for place in (0, 1, 3)]
    engine, llm = colocated(tiny_policy)
    # The fake puts the tokens of each image in its place; the engine compares what it got with its own.
    groups = engine.generate(continued(tiny_policy, scripted), SAMPLING, [[2], [3], [4]])
    assert llm.calls == ["generate"]
    assert [group[0].tokens[:2].tolist() for group in groups] == [[42, 54], [43, 53], [44, 51]]
    assert [one.seed for one in llm.params] == [2, 3, 4]


def test_completions_after_a_given_beginning_are_requests_of_tokens(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy)
    begun = BegunEngine(engine, tiny_policy, "<think></think><answer>")
    groups = begun.generate(vllm_prompts, SAMPLING, [[2, 3], [4, 5]])
    assert llm.calls == ["chat", "generate"]
    assert [one.seed for one in llm.params] == [2, 4, 3, 5]
    for whole, after in groups:
        assert whole.own.all()
        assert after.tokens[~after.own].tolist() == given_tokens(tiny_policy, begun.text).tolist()
        assert 0 < after.length < after.tokens.numel()


def test_a_prompt_that_vllm_expands_otherwise_is_noticed(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    engine, llm = colocated(tiny_policy)
    llm.model.spoil = lambda ids: ids[:-1]
    with pytest.raises(UserError, match="tokenizes a prompt differently"):
        engine.generate(continued(tiny_policy, scripts(noise_image)[:1]), SAMPLING, [[2]])


def test_without_one_of_its_images_a_conversation_has_no_turn(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    def gone() -> None:
        raise DataError("gone")

    engine, _ = colocated(tiny_policy)
    first, second = continued(tiny_policy, scripts(noise_image)[:2])
    lost = replace(first, images=(ImageRef("gone", gone),))  # type: ignore[arg-type]
    groups = engine.generate([lost, second], SAMPLING, [[2], [2]])
    assert [len(group) for group in groups] == [0, 1]


def test_conversations_about_a_video_are_refused_with_what_to_do(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    engine, llm = colocated(tiny_policy)
    with pytest.raises(UserError, match=r"about a video; set rollout\.engine=local"):
        engine.generate(continued(tiny_policy, scripts_about_videos(noise_image)[:1]), SAMPLING, [[2]])
    assert not llm.calls


def test_servers_get_the_same_tokens_and_images(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    scripted = [scripts(noise_image)[place] for place in (0, 1, 3)]
    engine, server = served(tiny_policy)
    with running(server):
        groups = engine.generate(continued(tiny_policy, scripted), SAMPLING, [[2], [3], [4]])
        engine.close()
    assert [group[0].tokens[:2].tolist() for group in groups] == [[42, 54], [43, 53], [44, 51]]
    asked = {body["sampling_params"]["seed"]: body["sampling_params"] for body in server.asked}
    assert sorted(asked) == [2, 3, 4]
    assert asked[2]["temperature"] == SAMPLING.temperature
    assert asked[2]["top_k"] == SAMPLING.top_k
    assert asked[2]["logprobs"] == 0


def test_a_server_without_the_route_for_tokens_is_named(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    engine, server = served(tiny_policy)
    server.missing = {TOKENS}
    with running(server), pytest.raises(EngineFailed, match="no /inference/v1/generate, which conversations"):
        engine.generate(continued(tiny_policy, scripts(noise_image)[:1]), SAMPLING, [[2]])
