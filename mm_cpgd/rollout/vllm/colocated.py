"""vLLM in the training process, on the same GPU. Written against vLLM 0.22 to 0.32."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.backend import MISSING, Request, TokenPrompt, VideoRequest, VllmCompletion
from mm_cpgd.rollout.vllm.colocated_stream import ColocatedStream, completion_of
from mm_cpgd.rollout.vllm.group import SharingGroup, open_group
from mm_cpgd.rollout.vllm.weights import AdapterFiles

# Ranks that vLLM makes room for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class ColocatedBackend:
    """vLLM in the training process, on the same GPU; every process, or group of processes, has its own.

    Args:
        llm: a ``vllm.LLM``.
        make_params: ``vllm.SamplingParams``.
        sleep: whether vLLM releases its GPU memory while the policy is updated: weights are moved to CPU
            memory, the key-value cache is dropped.
        group: the processes that share this vLLM; None: this one alone.
        make_adapter: ``vllm.lora.request.LoRARequest``; None: there will be no ``load_adapter``.
        keep_processes: whether torch's process group is the trainer's, and stays when vLLM ends.
    """

    def __init__(
        self,
        llm: Any,
        make_params: Any,
        sleep: bool = False,
        group: SharingGroup | None = None,
        make_adapter: Any = None,
        keep_processes: bool = False,
    ) -> None:
        self.llm = llm
        self.make_params = make_params
        self.sleep = sleep
        self.group = group or SharingGroup()
        self.make_adapter = make_adapter
        self.keep_processes = keep_processes
        self._adapter: Any = None
        self._adapter_number = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._asleep: set[str] = set()
        self._sleep()

    @property
    def dtype(self) -> torch.dtype | None:
        """Number format of weights and activations, as vLLM chose it."""
        config = getattr(self.llm, "model_config", None)
        return getattr(config, "dtype", None)

    def image_content(self, image: Image.Image) -> dict[str, Any]:
        """See ``VllmBackend.image_content``."""
        return {"type": "image_pil", "image_pil": image}

    takes_videos = True

    def chat(
        self, conversations: Sequence[Request], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[VllmCompletion]:
        """See ``VllmBackend.chat``; called by all processes that share this vLLM, for the same options."""
        requests, own = self.group.gather(list(zip(conversations, seeds, strict=True)))
        if not requests:
            return []
        params = [self._params(options, seed) for _, seed in requests]
        generated = [isinstance(request, VideoRequest | TokenPrompt) for request, _ in requests]
        self._wake("weights", "kv_cache")
        # The trainer's autocast must not apply to vLLM.
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            prompts = [index for index, plain in enumerate(generated) if plain]
            chats = [index for index, plain in enumerate(generated) if not plain]
            outputs: dict[int, Any] = {}
            for chosen, sample in ((chats, self._sample_chats), (prompts, self._sample_prompts)):
                if chosen:
                    found = sample([requests[i][0] for i in chosen], [params[i] for i in chosen])
                    outputs |= dict(zip(chosen, found, strict=True))
        self._sleep()
        return [completion_of(outputs[index]) for index in range(len(requests))[own]]

    def _params(self, options: Mapping[str, Any], seed: int) -> Any:
        # Texts that end a completion are found in its text.
        return self.make_params(**{"logprobs": 0, "detokenize": "stop" in options, **options}, seed=seed)

    def stream(self, options: Mapping[str, Any]) -> AbstractContextManager[ColocatedStream] | None:
        """See ``VllmBackend.stream``; None where several processes share this vLLM."""
        return None if self.group.size > 1 else self._stream(options)

    @contextlib.contextmanager
    def _stream(self, options: Mapping[str, Any]) -> Iterator[ColocatedStream]:
        self._wake("weights", "kv_cache")
        stream = ColocatedStream(self.llm, partial(self._params, options), self._adapter)
        try:
            yield stream
        finally:
            stream.close()
            self._sleep()

    def _sample_chats(self, conversations: list[Any], params: list[Any]) -> Any:
        # A conversation that ends with the assistant's turn is continued there; all of one call are alike.
        begun = conversations[0][-1]["role"] == "assistant"
        return self.llm.chat(
            conversations,
            sampling_params=params,
            use_tqdm=False,
            lora_request=self._adapter,
            **({"add_generation_prompt": False, "continue_final_message": True} if begun else {}),
        )

    def _sample_prompts(self, requests: list[Any], params: list[Any]) -> Any:
        return self.llm.generate(
            [one.prompt() for one in requests],
            sampling_params=params,
            use_tqdm=False,
            lora_request=self._adapter,
        )

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See ``VllmBackend.load``."""
        self._wake("weights")
        if any(self.llm.collective_rpc(_can_reload)):
            # Undoes what vLLM does to weights after loading (packing, quantization), and does it again.
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self.llm.apply_model(_pack_tied)
        else:
            self.llm.apply_model(lambda model: model.load_weights(weights))
        self._reset_caches()

    def load_adapter(self, files: AdapterFiles) -> None:
        """See ``AdapterBackend.load_adapter``; the other weights are those that vLLM was started with."""
        self._wake("weights")
        engine = self.llm.llm_engine
        if self._adapter is not None:
            engine.remove_lora(self._adapter.lora_int_id)
        folder = tempfile.TemporaryDirectory(prefix="mm-cpgd-adapter-")
        files.write(Path(folder.name))
        # Under a name of their own: vLLM takes adapters of the same name for the same, and keeps them.
        self._adapter_number += 1
        name = f"policy-{self._adapter_number}"
        self._adapter = self.make_adapter(name, self._adapter_number, folder.name)
        engine.add_lora(self._adapter)
        self._drop_folder()
        self._folder = folder  # vLLM may read it again
        self.llm.reset_prefix_cache()

    def close(self) -> None:
        """End vLLM in this process, and its process groups, while they still exist."""
        self._drop_folder()
        self.group.close()
        with _default_group_kept() if self.keep_processes else contextlib.nullcontext():
            self.llm.llm_engine.engine_core.shutdown()

    def _reset_caches(self) -> None:
        """Forget what was computed with the old weights: keys and values of prompts, features of images.

        At the engine, which resets its own record of what the workers hold, and the workers.
        """
        engine = self.llm.llm_engine
        self.llm.reset_prefix_cache()
        engine.reset_mm_cache()
        engine.reset_encoder_cache()

    def _drop_folder(self) -> None:
        if self._folder:
            self._folder.cleanup()
        self._folder = None

    def _wake(self, *tags: str) -> None:
        needed = [tag for tag in tags if tag in self._asleep]
        if needed:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.llm.wake_up(tags=needed)
            self._asleep -= set(needed)

    def _sleep(self) -> None:
        if self.sleep:
            self.llm.sleep(level=1)
            self._asleep = {"weights", "kv_cache"}


def _can_reload(worker: Any) -> bool:
    return hasattr(worker, "reload_weights")


def _pack_tied(model: Any) -> None:
    """Pack the weights of layers that share them with another layer.

    A reload packs the layers that a weight was loaded for. A layer whose weight is another one's (the head
    of tied embeddings) gets none: where packing makes a copy, as on a CPU, it would keep that of the old
    weights.
    """
    owners: dict[int, list[Any]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None and parameter.numel():
                owners.setdefault(parameter.data_ptr(), []).append(module)
    for module in {module for sharing in owners.values() if len(sharing) > 1 for module in sharing}:
        method: Any = getattr(module, "quant_method", None)
        # Quantizing what is quantized already would be wrong; packing plain weights again is not.
        if type(method).__name__.startswith("Unquantized"):
            method.process_weights_after_loading(module)


@contextlib.contextmanager
def _default_group_kept() -> Iterator[None]:
    """Keep vLLM from ending torch's default process group, which the trainer goes on to use."""
    destroy = torch.distributed.destroy_process_group

    def destroy_others(group: Any = None) -> None:
        if group is not None and group is not torch.distributed.GroupMember.WORLD:
            destroy(group)

    torch.distributed.destroy_process_group = destroy_others
    try:
        yield
    finally:
        torch.distributed.destroy_process_group = destroy


def open_colocated(
    model: str,
    *,
    processes: int = 1,
    tensor_parallel: int = 1,
    own_workers: bool = False,
    seed: int = 0,
    memory_share: float = 0.3,
    max_model_len: int | None = None,
    sleep: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    image_limits: Mapping[str, int] | None = None,
    adapter_rank: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> ColocatedBackend:
    """Start vLLM in this process; called on all processes of the run.

    Args:
        model: hub name or folder.
        processes: the run's number of processes.
        tensor_parallel: how many processes share one vLLM over their GPUs.
        own_workers: one process alone has vLLM start the processes that share it; not for a policy that is
            updated, since its weights are in this process.
        seed: seed of this process's vLLM; completions have their own seeds.
        memory_share: share of the GPU's memory for weights and key-value cache.
        max_model_len: most tokens of prompt and completion together; None: the model's own limit.
        sleep: see ``ColocatedBackend``.
        trust_remote_code: as for the policy.
        revision: revision of the model on the hub.
        image_limits: ``min_pixels`` and ``max_pixels``, as for the policy.
        adapter_rank: rank of the LoRA adapters that will be sent; None: weights will be sent.
        options: further arguments of ``vllm.LLM``; they take precedence.

    Raises:
        UserError: vLLM is not installed or does not start, or the processes cannot be divided.
    """
    # Weights are passed as tensors without copying, which requires vLLM in this very process.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM, SamplingParams
        from vllm.platforms import current_platform
    except ImportError as error:
        raise UserError(MISSING) from error
    settings: dict[str, Any] = {
        "model": model,
        "revision": revision,
        "seed": seed,
        "gpu_memory_utilization": memory_share,
        "max_model_len": max_model_len,
        "enable_prefix_caching": True,
        "enable_sleep_mode": sleep,
        "logprobs_mode": "processed_logprobs",
        "trust_remote_code": trust_remote_code,
    }
    if image_limits:
        settings["mm_processor_kwargs"] = dict(image_limits)
    if current_platform.is_cpu():
        settings |= _cpu_settings()
    if processes > 1:
        # vLLM uses the rank and device that the launcher gave this process and starts no processes itself.
        settings["distributed_executor_backend"] = "external_launcher"
    alone = own_workers and processes == 1
    group = SharingGroup() if alone else open_group(tensor_parallel, processes)
    settings["tensor_parallel_size"] = tensor_parallel if alone else group.size
    make_adapter: Any = None
    if adapter_rank is not None:
        from vllm.lora.request import LoRARequest

        settings |= _adapter_settings(adapter_rank)
        make_adapter = LoRARequest
    keep = torch.distributed.is_initialized()
    try:
        llm = LLM(**{**settings, **(options or {})})
    except (ValueError, OSError, RuntimeError, AssertionError) as error:
        raise UserError(f"vLLM does not start with {model}: {str(error)[:500]}") from error
    return ColocatedBackend(llm, SamplingParams, sleep, group, make_adapter, keep)


def _cpu_settings() -> dict[str, Any]:
    """Return settings that vLLM's build for CPUs needs."""
    return {
        # A request with a seed of its own fails if its prompt is computed in chunks ("CPU Generator does not
        # use offset").
        "enable_chunked_prefill": False,
    }


def _adapter_settings(rank: int) -> dict[str, Any]:
    room = next((size for size in _RANKS if size >= rank), None)
    if room is None:
        raise UserError(
            f"rollout.vllm.adapters=adapter: vLLM takes adapters of rank {_RANKS[-1]} at most, and "
            f"policy.lora.rank is {rank}; set rollout.vllm.adapters=merged"
        )
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
