"""vLLM in the training process, on the same GPU. Written against vLLM 0.22 to 0.32."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.backend import MISSING, VllmCompletion


class ColocatedBackend:
    """vLLM in the training process, on the same GPU; every process has its own.

    Args:
        llm: a ``vllm.LLM``.
        make_params: ``vllm.SamplingParams``.
        sleep: whether vLLM releases its GPU memory while the policy is updated: weights are moved to CPU
            memory, the key-value cache is dropped.
    """

    def __init__(self, llm: Any, make_params: Any, sleep: bool = False) -> None:
        self.llm = llm
        self.make_params = make_params
        self.sleep = sleep
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

    def chat(
        self, conversations: Sequence[list[dict[str, Any]]], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[VllmCompletion]:
        """See ``VllmBackend.chat``."""
        params = [self.make_params(**options, seed=seed, logprobs=0, detokenize=False) for seed in seeds]
        self._wake("weights", "kv_cache")
        # The trainer's autocast must not apply to vLLM.
        with torch.autocast("cuda", enabled=False):
            outputs = self.llm.chat(list(conversations), sampling_params=params, use_tqdm=False)
        self._sleep()
        return [_completion(output) for output in outputs]

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See ``VllmBackend.load``."""
        self._wake("weights")

        def load(model: Any) -> None:
            model.load_weights(weights)

        self.llm.apply_model(load)
        self.llm.reset_prefix_cache()

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


def _completion(result: Any) -> VllmCompletion:
    """Convert a ``vllm.RequestOutput`` with one completion."""
    output = result.outputs[0]
    pairs = zip(output.token_ids, output.logprobs, strict=True)
    logprobs = [by_token[token].logprob for token, by_token in pairs]
    return VllmCompletion(result.prompt_token_ids, list(output.token_ids), logprobs)


def open_colocated(
    model: str,
    *,
    processes: int = 1,
    seed: int = 0,
    memory_share: float = 0.3,
    max_model_len: int | None = None,
    sleep: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    image_limits: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ColocatedBackend:
    """Start vLLM in this process.

    Args:
        model: hub name or folder.
        processes: the run's number of processes; each starts its own vLLM on its own GPU.
        seed: seed of this process's vLLM; completions have their own seeds.
        memory_share: share of the GPU's memory for weights and key-value cache.
        max_model_len: most tokens of prompt and completion together; None: the model's own limit.
        sleep: see ``ColocatedBackend``.
        trust_remote_code: as for the policy.
        revision: revision of the model on the hub.
        image_limits: ``min_pixels`` and ``max_pixels``, as for the policy.
        options: further arguments of ``vllm.LLM``; they take precedence.

    Raises:
        UserError: vLLM is not installed or does not start.
    """
    # Weights are passed as tensors without copying, which requires vLLM in this very process.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM, SamplingParams
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
    if processes > 1:
        # vLLM uses the rank and device that the launcher gave this process and starts no processes itself.
        settings["distributed_executor_backend"] = "external_launcher"
    try:
        llm = LLM(**{**settings, **(options or {})})
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(f"vLLM does not start with {model}: {str(error)[:500]}") from error
    return ColocatedBackend(llm, SamplingParams, sleep)
