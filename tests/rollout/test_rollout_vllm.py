"""vLLM as the engine, with fakes that have its interfaces: no GPU, and no vLLM, is needed."""

from __future__ import annotations

import base64
import inspect
import io
import sys
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from data import Example, ImageRef
from mm_cpgd.config import LoraConfig, PolicyConfig
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout import Completion, LocalEngine, Sampling
from mm_cpgd.rollout import vllm_backends as backends
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.rollout.weights import named_weights

SAMPLING = Sampling(max_new_tokens=6, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1)


@pytest.fixture(scope="module")
def prompts(tiny_policy: Policy, noise_image: Callable[..., ImageRef]) -> list[EncodedPrompt]:
    red, blue = noise_image(112, 112), noise_image(84, 56, 1)
    rows = [
        Example("two", "Which is larger, <image> or <image>?", "3", images=(red, blue)),
        Example("text", "What is it?", "3"),
    ]
    return [tiny_policy.encoder.encode(row) for row in rows]


class Model:
    """What vLLM answers: tokens that tell prompt and seed, and weights as it got them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.weights: dict[str, torch.Tensor] = {}
        self.spoil: Callable[[list[int]], list[int]] = lambda ids: ids

    def load_weights(self, weights: Any) -> set[str]:
        self.weights = {name: value.clone() for name, value in weights}
        return set(self.weights)

    def answer(
        self, conversation: list[dict[str, Any]], seed: int
    ) -> tuple[list[int], list[int], list[float]]:
        """Read the conversation as vLLM does: by the processor, images inside."""
        images = [image_in(part) for part in parts_of(conversation) if part["type"].startswith("image")]
        plain = [
            {
                "role": message["role"],
                "content": [
                    {"type": "image"} if part["type"].startswith("image") else part
                    for part in message["content"]
                ],
            }
            for message in conversation
        ]
        processor = self.policy.processor
        text = processor.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
        ids = processor(text=[text], images=images or None, return_tensors="pt")["input_ids"][0].tolist()
        # An odd seed never ends.
        last = 60 if seed % 2 else self.policy.end_ids[0]
        return self.spoil(ids), [40 + seed % 10, 50 + len(images), last], [-0.5, -1.0, -float(seed)]


def parts_of(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for message in conversation for part in message["content"]]


def image_in(part: dict[str, Any]) -> Image.Image:
    if part["type"] == "image_pil":
        return part["image_pil"]
    data = part["image_url"]["url"].removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(data)))


class FakeLLM:
    """``vllm.LLM`` as far as it is used, with its signatures."""

    def __init__(self, policy: Policy) -> None:
        self.model = Model(policy)
        self.calls: list[Any] = []
        self.params: list[SimpleNamespace] = []

    def chat(
        self,
        messages: Any,
        sampling_params: Any = None,
        use_tqdm: bool = True,
        lora_request: Any = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Any = None,
        chat_template_kwargs: Any = None,
        mm_processor_kwargs: Any = None,
    ) -> list[Any]:
        self.calls.append("chat")
        self.params += sampling_params
        return [self._output(*pair) for pair in zip(messages, sampling_params, strict=True)]

    def _output(self, conversation: list[dict[str, Any]], params: Any) -> Any:
        prompt, tokens, logprobs = self.model.answer(conversation, params.seed)
        of_tokens = [
            {token: SimpleNamespace(logprob=value, rank=1, decoded_token=None)}
            for token, value in zip(tokens, logprobs, strict=True)
        ]
        output = SimpleNamespace(index=0, token_ids=tokens, logprobs=of_tokens, finish_reason="stop")
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[output])

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        self.calls.append("apply_model")
        return [func(self.model)]

    def reset_prefix_cache(self, reset_running_requests: bool = False) -> bool:
        self.calls.append("reset_prefix_cache")
        return True

    def sleep(self, level: int = 1) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.calls.append(("wake_up", tags))


class FakeClient:
    """TRL's ``VLLMClient``; every call has to fit the signature of the real one."""

    base_url = "http://gpu:8000"

    def __init__(self, policy: Policy) -> None:
        self.model = Model(policy)
        self.calls: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.fail: Exception | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from trl.generation.vllm_client import VLLMClient

        signature = inspect.signature(getattr(VLLMClient, name))

        def call(*args: Any, **options: Any) -> Any:
            given = signature.bind(self, *args, **options).arguments
            self.calls.append(name)
            if self.fail:
                raise self.fail
            return getattr(self, f"_{name}")(given)

        return call

    def _chat(self, given: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(given)
        (conversation,) = given["messages"]
        prompt, tokens, logprobs = self.model.answer(conversation, given["generation_kwargs"]["seed"])
        return {
            "prompt_ids": [prompt],
            "completion_ids": [tokens],
            "logprobs": [[[value] for value in logprobs]],
            "logprob_token_ids": [[[token] for token in tokens]],
        }

    def _init_communicator(self, given: dict[str, Any]) -> None:
        self.device = given["device"]

    def _update_named_params(self, given: dict[str, Any]) -> None:
        weights = list(given["named_params"])
        assert given["metadata"] == [
            (name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in weights
        ]
        self.model.load_weights(weights)

    def _reset_prefix_cache(self, given: dict[str, Any]) -> None:
        pass


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
