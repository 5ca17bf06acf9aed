"""vLLM as the engine, with fakes that have its interfaces: no GPU, and no vLLM, is needed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from data import Example, ImageRef
from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout import Completion, LocalEngine, Sampling
from mm_cpgd.rollout import vllm_backends as backends
from mm_cpgd.rollout.vllm import VllmEngine, named_weights
from tests.fakes.vllm import FakeClient, FakeLLM

SAMPLING = Sampling(max_new_tokens=6, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1)


@pytest.fixture(scope="module")
def prompts(tiny_policy: Policy, noise_image: Callable[..., ImageRef]) -> list[EncodedPrompt]:
    red, blue = noise_image(112, 112), noise_image(84, 56, 1)
    rows = [
        Example("two", "Which is larger, <image> or <image>?", "3", images=(red, blue)),
        Example("text", "What is it?", "3"),
    ]
    return [tiny_policy.encoder.encode(row) for row in rows]


def colocated(policy: Policy, sleep: bool = False) -> tuple[VllmEngine, FakeLLM]:
    llm = FakeLLM(policy)
    return VllmEngine(policy, backends.Colocated(llm, SimpleNamespace, sleep)), llm


def served(policy: Policy, rank: int = 0) -> tuple[VllmEngine, FakeClient]:
    client = FakeClient(policy)
    accelerator: Any = SimpleNamespace(
        is_main_process=rank == 0,
        device=torch.device("cpu"),
        wait_for_everyone=lambda: client.__dict__["calls"].append("wait"),
    )
    return VllmEngine(policy, backends.Server(client, accelerator, requests=4)), client


@pytest.fixture(params=[colocated, served])
def engine(request: pytest.FixtureRequest, tiny_policy: Policy) -> tuple[VllmEngine, Any]:
    return request.param(tiny_policy)


def test_groups_come_in_the_order_of_prompts_and_seeds(
    engine: tuple[VllmEngine, Any], prompts: list[EncodedPrompt]
) -> None:
    groups = engine[0].generate(prompts, SAMPLING, [[2, 3], [4, 5, 6]])
    first = [[completion.tokens[0].item() for completion in group] for group in groups]
    assert first == [[42, 43], [44, 45, 46]]


def test_images_travel_with_their_prompt_in_the_order_of_the_text(
    engine: tuple[VllmEngine, Any], prompts: list[EncodedPrompt]
) -> None:
    # The fake reads prompts by the processor; another order of these two images gives other tokens.
    groups = engine[0].generate(prompts, SAMPLING, [[2], [2]])
    assert [group[0].tokens[1].item() for group in groups] == [52, 50]


def test_a_completion_has_tokens_text_logprobs_and_its_end(
    engine: tuple[VllmEngine, Any], prompts: list[EncodedPrompt], tiny_policy: Policy
) -> None:
    ended, cut = engine[0].generate(prompts[1:], SAMPLING, [[4, 7]])[0]
    end = tiny_policy.end_ids[0]
    assert ended.tokens.tolist() == [44, 50, end]
    assert ended.logprobs.tolist() == [-0.5, -1.0, -4.0]
    assert (ended.finished, cut.finished) == (True, False)
    assert ended.text == tiny_policy.tokenizer.decode([44, 50])


def test_completions_are_those_of_the_local_engine_in_kind(
    engine: tuple[VllmEngine, Any], prompts: list[EncodedPrompt], tiny_policy: Policy
) -> None:
    def kinds(completion: Completion) -> list[Any]:
        return [
            completion.tokens.dtype,
            completion.logprobs.dtype,
            type(completion.text),
            type(completion.finished),
        ]

    here = LocalEngine(tiny_policy).generate(prompts, SAMPLING, [[1], [2]])
    there = engine[0].generate(prompts, SAMPLING, [[1], [2]])
    assert kinds(there[0][0]) == kinds(here[0][0])


def test_another_reading_of_the_prompt_is_refused(
    engine: tuple[VllmEngine, Any], prompts: list[EncodedPrompt]
) -> None:
    engine[1].model.spoil = lambda ids: [*ids[:5], 7, *ids[6:], 9]
    with pytest.raises(UserError, match="first difference at token 5;"):
        engine[0].generate(prompts[1:], SAMPLING, [[1]])


def test_weights_arrive_whole_and_the_cached_prefixes_are_forgotten(
    engine: tuple[VllmEngine, Any], tiny_policy: Policy
) -> None:
    engine[0].load_weights(tiny_policy)
    arrived = engine[1].model.weights
    expected = dict(tiny_policy.model.named_parameters())
    assert arrived.keys() == expected.keys()
    assert all(torch.equal(arrived[name], expected[name]) for name in expected)
    assert "reset_prefix_cache" in engine[1].calls


def test_an_update_is_seen_by_the_next_load(engine: tuple[VllmEngine, Any], tiny_folder: Any) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    engine[0].load_weights(policy)
    name, parameter = next(iter(policy.model.named_parameters()))
    before = engine[1].model.weights[name]
    with torch.no_grad():
        parameter.add_(1.0)
    engine[0].load_weights(policy)
    torch.testing.assert_close(engine[1].model.weights[name], before + 1.0)


def test_sampling_in_process_is_asked_for_in_vllms_words(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy)
    engine.generate(prompts[1:], SAMPLING, [[11]])
    assert vars(llm.params[0]) == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "max_tokens": 6,
        "stop_token_ids": tiny_policy.end_ids,
        "logit_bias": dict.fromkeys(tiny_policy.forbidden_ids, -100.0),
        "seed": 11,
        "logprobs": 0,
        "detokenize": False,
    }


def test_sampling_on_a_server_is_asked_for_in_its_clients_words(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    engine, client = served(tiny_policy)
    engine.generate(prompts[1:], SAMPLING, [[11]])
    asked = client.asked[0]
    assert [asked[name] for name in ("temperature", "top_p", "top_k", "min_p", "max_tokens", "logprobs")] == [
        0.7, 0.9, 5, 0.1, 6, 0,
    ]  # fmt: skip
    assert asked["generation_kwargs"] == {
        "seed": 11,
        "stop_token_ids": tiny_policy.end_ids,
        "logit_bias": {str(token): -100.0 for token in tiny_policy.forbidden_ids},
    }


def test_every_completion_has_the_seed_that_was_given(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy)
    engine.generate(prompts, SAMPLING, [[3, 1], [4, 1]])
    assert [params.seed for params in llm.params] == [3, 1, 4, 1]


def test_asleep_it_is_woken_for_weights_and_then_for_its_cache(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy, sleep=True)
    engine.load_weights(tiny_policy)
    engine.generate(prompts[1:], SAMPLING, [[1]])
    engine.generate(prompts[1:], SAMPLING, [[1]])
    assert llm.calls == [
        ("sleep", 1),
        ("wake_up", ["weights"]),
        "apply_model",
        "reset_prefix_cache",
        ("wake_up", ["kv_cache"]),
        "chat",
        ("sleep", 1),
        ("wake_up", ["weights", "kv_cache"]),
        "chat",
        ("sleep", 1),
    ]


def test_awake_it_is_never_sent_to_sleep(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    engine, llm = colocated(tiny_policy)
    engine.load_weights(tiny_policy)
    engine.generate(prompts[1:], SAMPLING, [[1]])
    assert llm.calls == ["apply_model", "reset_prefix_cache", "chat"]


def test_a_server_is_connected_once_and_all_processes_wait_for_the_weights(tiny_policy: Policy) -> None:
    engine, client = served(tiny_policy)
    engine.load_weights(tiny_policy)
    engine.load_weights(tiny_policy)
    sent = ["update_named_params", "reset_prefix_cache", "wait"]
    assert client.calls == ["init_communicator", *sent, *sent]


def test_only_the_main_process_sends_weights(tiny_policy: Policy) -> None:
    engine, client = served(tiny_policy, rank=1)
    engine.load_weights(tiny_policy)
    assert client.calls == ["wait"]


@pytest.mark.parametrize(
    "act",
    [
        lambda engine, prompts: engine.load_weights(engine.policy),
        lambda engine, prompts: engine.generate(prompts[1:], SAMPLING, [[1]]),
    ],
)
def test_a_server_that_fails_ends_the_run_with_a_message(
    act: Callable[..., Any], tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    engine, client = served(tiny_policy)
    client.fail = Exception("Request failed: 500, out of memory")
    with pytest.raises(RunEnded, match=r"http://gpu:8000 failed: .*out of memory.*--resume"):
        act(engine, prompts)


def test_adapters_are_merged_into_what_is_sent(tiny_folder: Any) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder), lora=LoraConfig(rank=2)))
    plain = dict(load_policy(PolicyConfig(model=str(tiny_folder))).model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.ones_(parameter)
    sent = dict(named_weights(policy))
    assert sent.keys() == plain.keys()
    changed = {name for name in sent if not torch.equal(sent[name], plain[name])}
    assert changed
    assert all("language_model" in name for name in changed)


def test_weights_that_are_spread_over_processes_are_refused(tiny_policy: Policy, monkeypatch: Any) -> None:
    parameter = next(iter(tiny_policy.model.parameters()))
    monkeypatch.setattr(parameter, "ds_id", 0, raising=False)
    with pytest.raises(UserError, match="spread over processes"):
        list(named_weights(tiny_policy))


@pytest.mark.parametrize(
    "start",
    [
        lambda: backends.open_colocated("some/model"),
        lambda: backends.open_server("http://localhost:1", Accelerator(), wait=0.0),
    ],
)
def test_without_vllm_the_message_names_the_extra(start: Callable[[], Any], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'mm-cpgd\[vllm\]'"):
        start()


def fake_vllm(monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]) -> None:
    module = types.ModuleType("vllm")
    vars(module).update(LLM=start, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def test_vllm_is_started_with_prefix_caching_and_plain_logprobs(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}
    fake_vllm(monkeypatch, lambda **settings: started.update(settings))
    backends.open_colocated(
        "some/model", processes=2, image_limits={"max_pixels": 9}, options={"dtype": "bfloat16", "seed": 5}
    )
    expected = {
        "model": "some/model",
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "mm_processor_kwargs": {"max_pixels": 9},
        "distributed_executor_backend": "external_launcher",
        "dtype": "bfloat16",
        "seed": 5,
    }
    assert expected.items() <= started.items()


def test_a_vllm_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**settings: Any) -> Any:
        raise ValueError("no room for the cache")

    fake_vllm(monkeypatch, start)
    with pytest.raises(UserError, match="no room for the cache"):
        backends.open_colocated("some/model")
