"""Sampling with vLLM: it reads the same conversations, with the weights of the policy after every update.

Whether vLLM runs in this process or as a server is the backend's affair (``vllm_backends``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.lora import merged_weights
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.engine import Completion, Group, Sampling

if TYPE_CHECKING:
    from mm_cpgd.policy import Policy


# The strongest that vLLM takes: e⁻¹⁰⁰ of its probability is left to such a token.
_NEVER = -100.0


@dataclass(frozen=True)
class Sampled:
    """What vLLM says of one completion.

    Attributes:
        prompt_ids: the prompt as it read it, image tokens included.
        token_ids: of the completion, the end token included.
        logprobs: of these tokens at temperature 1, before anything was cut or forbidden (vLLM's
            ``raw_logprobs``).
    """

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    logprobs: Sequence[float | None]


class Backend(Protocol):
    """A vLLM, wherever it runs."""

    def image_part(self, image: Image.Image) -> dict[str, Any]:
        """Return the part of a message that carries an image."""
        ...

    def chat(
        self, conversations: Sequence[list[dict[str, Any]]], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> list[Sampled]:
        """Answer each conversation once, with its own seed and the sampling options of vLLM."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the weights, and forget what was cached under the old ones."""
        ...


class VllmEngine:
    """A ``RolloutEngine`` on vLLM.

    Every completion is a request of its own, so that its seed is its own; that the prompt runs once for all
    of them is left to vLLM's prefix cache. The same seed gives the same text as far as vLLM's kernels do not
    depend on what else is in the batch.

    Args:
        policy: tells end tokens and forbidden tokens, and decodes.
        backend: samples.
    """

    def __init__(self, policy: Policy, backend: Backend) -> None:
        self.policy = policy
        self.backend = backend

    def load_weights(self, policy: Policy) -> None:
        """Send the policy's weights."""
        self.policy = policy
        self.backend.load(named_weights(policy))

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``.

        Raises:
            UserError: vLLM reads a prompt otherwise than the policy does.
        """
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts, but seeds for {len(seeds)}")
        owners = [p for p, group in enumerate(seeds) for _ in group]
        asked = [self._conversation(prompt) for prompt in prompts]
        flat = [seed for group in seeds for seed in group]
        sampled = self.backend.chat([asked[p] for p in owners], flat, self._options(sampling))
        groups: list[Group] = [[] for _ in prompts]
        for owner, one in zip(owners, sampled, strict=True):
            _check_prompt(prompts[owner], one)
            groups[owner].append(self._completion(one))
        return groups

    def _conversation(self, prompt: EncodedPrompt) -> list[dict[str, Any]]:
        """Return the messages with the images in them."""
        if prompt.conversation is None:
            raise ValueError("a prompt without its conversation cannot be sent; encode it by PromptEncoder")
        images = iter(prompt.conversation.images)

        def filled(part: dict[str, Any]) -> dict[str, Any]:
            return self.backend.image_part(next(images).open()) if part["type"] == "image" else part

        return [
            {**message, "content": [filled(part) for part in message["content"]]}
            for message in prompt.conversation.messages
        ]

    def _options(self, sampling: Sampling) -> dict[str, Any]:
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "max_tokens": sampling.max_new_tokens,
            "stop_token_ids": self.policy.end_ids,
            "logit_bias": dict.fromkeys(self.policy.forbidden_ids, _NEVER),
        }

    def _completion(self, sampled: Sampled) -> Completion:
        tokens = torch.tensor(sampled.token_ids, dtype=torch.long)
        # None stands for NaN, which JSON has no way to write.
        values = [float("nan") if value is None else value for value in sampled.logprobs]
        if len(values) != len(tokens):
            raise ValueError(f"vLLM returned {len(tokens)} tokens with {len(values)} log-probabilities")
        finished = bool(len(tokens)) and int(tokens[-1]) in self.policy.end_ids
        text = self.policy.tokenizer.decode(sampled.token_ids, skip_special_tokens=True)
        return Completion(tokens, torch.tensor(values, dtype=torch.float32), text, finished)


def _check_prompt(prompt: EncodedPrompt, sampled: Sampled) -> None:
    """Refuse completions of another prompt than the one that would be trained on."""
    own, read = prompt.input_ids.tolist(), list(sampled.prompt_ids)
    if own == read:
        return
    pairs = zip(own, read, strict=False)
    place = next((i for i, (mine, its) in enumerate(pairs) if mine != its), min(len(own), len(read)))
    raise UserError(
        f"vLLM reads a prompt otherwise than the policy: {len(read):,} tokens instead of {len(own):,}, the "
        f"first difference at token {place:,}; it has to have the same chat template and image limits "
        "(policy.min_pixels and max_pixels; a server takes them by --mm-processor-kwargs)"
    )


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Yield name and weight of every parameter, tied ones once; with adapters, merged copies on the CPU.

    Raises:
        UserError: the weights are spread over processes, so that no process has a whole one.
    """
    if policy.adapter is None:
        for name, parameter in policy.model.named_parameters():
            _check_whole(name, parameter)
            yield name, parameter.detach()
        return
    merged = merged_weights(policy.model)
    for name, parameter in policy.model.named_parameters():
        if ".lora_" not in name:
            _check_whole(name, parameter)
            plain = name.replace(".base_layer.", ".")
            yield plain, merged[plain]


def _check_whole(name: str, parameter: Any) -> None:
    # FSDP2 keeps a DTensor, DeepSpeed ZeRO-3 an empty tensor with an id.
    if hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id"):
        raise UserError(
            f"rollout.engine=vllm cannot send {name}, which is spread over processes (FSDP or DeepSpeed "
            "ZeRO-3); train with DDP"
        )
