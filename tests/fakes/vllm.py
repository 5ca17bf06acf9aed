"""Fakes of vLLM and of its server's client, with their interfaces; they record what they receive."""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from mm_cpgd.policy import Policy
from mm_cpgd.rollout import Sampling
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.rollout.vllm.colocated import ColocatedBackend
from mm_cpgd.rollout.vllm.server import ServerBackend

SAMPLING = Sampling(max_new_tokens=6, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1)


class Model:
    """The model in a fake vLLM: its tokens encode prompt and seed, and it keeps the weights it received."""

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
        """Tokenize the conversation by the processor, as vLLM does; return prompt, tokens and logprobs."""
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
        # With an odd seed the completion has no end token.
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
    """The methods of ``vllm.LLM`` that the backend uses, with their signatures."""

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
    """Fake of TRL's ``VLLMClient``; every call must match the real signature."""

    base_url = "http://gpu:8000"
    processed = True

    def __init__(self, policy: Policy) -> None:
        self.model = Model(policy)
        self.calls: list[Any] = []
        self.requests: list[dict[str, Any]] = []
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
        self.requests.append(given)
        (conversation,) = given["messages"]
        prompt, tokens, logprobs = self.model.answer(conversation, given["generation_kwargs"]["seed"])
        if given.get("top_k") == 1 and self.processed:  # of a single kept token the probability is 1
            logprobs = [0.0] * len(logprobs)
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
    return VllmEngine(policy, ColocatedBackend(llm, SimpleNamespace, sleep)), llm


def served(policy: Policy, rank: int = 0) -> tuple[VllmEngine, FakeClient]:
    client = FakeClient(policy)
    accelerator: Any = SimpleNamespace(
        is_main_process=rank == 0,
        device=torch.device("cpu"),
        wait_for_everyone=lambda: client.__dict__["calls"].append("wait"),
    )
    return VllmEngine(policy, ServerBackend(client, accelerator, requests=4)), client
