"""Fakes of vLLM with its interfaces; they record what they receive. ``vllm_server`` has one of its server."""

from __future__ import annotations

import base64
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.video_utils import VideoMetadata

from mm_cpgd.policy import Policy
from mm_cpgd.rollout import Sampling
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.rollout.vllm.colocated import ColocatedBackend
from mm_cpgd.rollout.vllm.group import SharingGroup

SAMPLING = Sampling(max_new_tokens=6, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1)


class Packing:
    """Fake of the method by which vLLM packs a layer's plain weights into a copy."""

    def process_weights_after_loading(self, layer: Any) -> None:
        layer.packed = layer.weight.detach().clone()


class UnquantizedPacking(Packing):
    """As vLLM's classes are called that leave the weights themselves as they are."""


class Model(torch.nn.Module):
    """The model in a fake vLLM: its tokens encode prompt and seed, and it keeps the weights it received.

    Its head has the weight of its embedding, and both are packed once after loading.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.__dict__["policy"] = policy
        self.embedding, self.head = torch.nn.Embedding(4, 2), torch.nn.Linear(2, 4, bias=False)
        self.head.weight = self.embedding.weight
        for layer in (self.embedding, self.head):
            layer.quant_method = UnquantizedPacking()
            layer.quant_method.process_weights_after_loading(layer)
        self.weights: dict[str, torch.Tensor] = {}
        self.spoil: Callable[[list[int]], list[int]] = lambda ids: ids

    def load_weights(self, weights: Any) -> set[str]:
        self.weights = {name: value.clone() for name, value in weights}
        with torch.no_grad():
            self.embedding.weight.add_(1.0)
        return set(self.weights)

    def expand(self, prompt_token_ids: list[int], multi_modal_data: Any = None) -> tuple[list[int], int]:
        """Return a prompt of tokens as vLLM expands it, and the number of its images."""
        images = (multi_modal_data or {}).get("image", [])
        return _expanded(self.policy, prompt_token_ids, images), len(images)

    def answer(self, conversation: Any, seed: int) -> tuple[list[int], list[int], list[float]]:
        """Tokenize the conversation by the processor, as vLLM does; return prompt, tokens and logprobs.

        A prompt of tokens comes with its number of images.
        """
        if isinstance(conversation, tuple):
            ids, count = conversation
            last = 60 if seed % 2 else self.policy.end_ids[0]
            return self.spoil(ids), [40 + seed % 10, 50 + count, last], [-0.5, -1.0, -float(seed)]
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

    def answer_video(self, prompt: dict[str, Any], seed: int) -> tuple[list[int], list[int], list[float]]:
        """As ``answer``, for a prompt with frames and metadata of videos."""
        videos = prompt["multi_modal_data"]["video"]
        options = prompt["mm_processor_kwargs"]
        known = [
            VideoMetadata(**{name: value for name, value in one.items() if name != "do_sample_frames"})
            for _, one in videos
        ]
        ids = self.policy.processor(
            text=[prompt["prompt"]],
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2) for frames, _ in videos],
            videos_kwargs={**options, "video_metadata": known},
            return_tensors="pt",
        )["input_ids"][0].tolist()
        last = 60 if seed % 2 else self.policy.end_ids[0]
        return self.spoil(ids), [40 + seed % 10, 30, last], [-0.5, -1.0, -float(seed)]


def _expanded(policy: Policy, ids: list[int], images: list[Image.Image]) -> list[int]:
    """Put as many tokens in the place of each image token as the image has."""
    pad = policy.model.config.image_token_id
    assert ids.count(pad) == len(images)
    grids = policy.processor.image_processor(images=images)["image_grid_thw"] if images else []
    sizes = iter([int(grid.prod()) // policy.processor.image_processor.merge_size**2 for grid in grids])
    return [token for one in ids for token in ([one] * next(sizes) if one == pad else [one])]


def parts_of(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for message in conversation for part in message["content"]]


def image_in(part: dict[str, Any]) -> Image.Image:
    if part["type"] == "image_pil":
        return part["image_pil"]
    return image_at(part["image_url"]["url"])


def image_at(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))


class Worker:
    """Fake of vLLM's worker; a reload packs the layers that a weight has been loaded for."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def reload_weights(self, weights_iterator: Any) -> None:
        self.model.load_weights(weights_iterator)
        self.model.embedding.quant_method.process_weights_after_loading(self.model.embedding)


class OldWorker:
    """Fake of the worker of a vLLM that cannot reload weights."""


class Engine:
    """The methods of ``vllm.v1.engine.llm_engine.LLMEngine`` that the backend uses."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.engine_core = SimpleNamespace(shutdown=lambda: calls.append("shutdown"))
        self.waiting: list[Any] = []
        self.adapters: dict[int, dict[str, torch.Tensor]] = {}
        self.adapter_settings: dict[str, Any] = {}

    def reset_mm_cache(self) -> None:
        self.calls.append("reset_mm_cache")

    def reset_encoder_cache(self) -> None:
        self.calls.append("reset_encoder_cache")

    def step(self) -> list[Any]:
        """Answer one request, the newest: answers come in any order."""
        self.calls.append("step")
        return [self.waiting.pop()]

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        self.calls.append(("abort", request_ids, internal))

    def add_lora(self, lora_request: Any) -> bool:
        folder = Path(lora_request.lora_path)
        self.calls.append("add_lora")
        self.adapter_settings = json.loads((folder / "adapter_config.json").read_text())
        self.adapters[lora_request.lora_int_id] = load_file(folder / "adapter_model.safetensors")
        return True

    def remove_lora(self, lora_id: int) -> bool:
        self.calls.append("remove_lora")
        return self.adapters.pop(lora_id, None) is not None


def make_adapter(lora_name: str, lora_int_id: int, lora_path: str) -> SimpleNamespace:
    """Fake of ``vllm.lora.request.LoRARequest``."""
    return SimpleNamespace(lora_name=lora_name, lora_int_id=lora_int_id, lora_path=lora_path)


class FakeLLM:
    """The methods of ``vllm.LLM`` that the backend uses, with their signatures."""

    def __init__(self, policy: Policy) -> None:
        self.model = Model(policy)
        self.calls: list[Any] = []
        self.params: list[SimpleNamespace] = []
        self.worker: Any = Worker(self.model)
        self.llm_engine = Engine(self.calls)
        self.adapter: Any = None
        self.prompts: list[dict[str, Any]] = []

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
        self.adapter = lora_request
        return [self._output(*pair) for pair in zip(messages, sampling_params, strict=True)]

    def generate(
        self,
        prompts: Any,
        sampling_params: Any = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
    ) -> list[Any]:
        self.calls.append("generate")
        self.params += sampling_params
        self.adapter = lora_request
        expanded = [
            prompt if "mm_processor_kwargs" in prompt else self.model.expand(**prompt) for prompt in prompts
        ]
        self.prompts += [prompt for prompt in prompts if "mm_processor_kwargs" in prompt]
        return [self._output(*pair) for pair in zip(expanded, sampling_params, strict=True)]

    def enqueue(
        self,
        prompts: Any,
        sampling_params: Any = None,
        lora_request: Any = None,
        priority: Any = None,
        use_tqdm: bool = True,
    ) -> list[str]:
        names = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            (output,) = self.generate([prompt], [params], lora_request=lora_request)
            output.request_id, output.finished = str(len(self.params)), True
            self.llm_engine.waiting.append(output)
            names.append(f"{output.request_id}-0a1b2c3d")
        return names

    def _output(self, conversation: Any, params: Any) -> Any:
        answer = self.model.answer_video if isinstance(conversation, dict) else self.model.answer
        prompt, tokens, logprobs = answer(conversation, params.seed)
        of_tokens = [
            {token: SimpleNamespace(logprob=value, rank=1, decoded_token=None)}
            for token, value in zip(tokens, logprobs, strict=True)
        ]
        output = SimpleNamespace(index=0, token_ids=tokens, logprobs=of_tokens, finish_reason="stop")
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[output])

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        self.calls.append("apply_model")
        return [func(self.model)]

    def collective_rpc(
        self, method: Any, timeout: float | None = None, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> list[Any]:
        if callable(method):
            return [method(self.worker, *args, **(kwargs or {}))]
        self.calls.append(method)
        return [getattr(self.worker, method)(*args, **(kwargs or {}))]

    def reset_prefix_cache(self, reset_running_requests: bool = False) -> bool:
        self.calls.append("reset_prefix_cache")
        return True

    def sleep(self, level: int = 1) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.calls.append(("wake_up", tags))


def install_vllm(monkeypatch: pytest.MonkeyPatch, llm: Callable[..., Any], *, cpu: bool = False) -> None:
    """Let ``import vllm`` give a fake whose ``LLM`` is this one, as a build for GPUs or for CPUs."""
    platform = SimpleNamespace(is_cpu=lambda: cpu)
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"LLM": llm, "SamplingParams": SimpleNamespace},
        "vllm.platforms": {"current_platform": platform},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": make_adapter},
    }
    for name, content in contents.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def colocated(
    policy: Policy, sleep: bool = False, adapters: bool = False, group: SharingGroup | None = None
) -> tuple[VllmEngine, FakeLLM]:
    llm = FakeLLM(policy)
    backend = ColocatedBackend(llm, SimpleNamespace, sleep, group, make_adapter if adapters else None)
    return VllmEngine(policy, backend, backend if adapters else None), llm
