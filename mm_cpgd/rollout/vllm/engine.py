"""Rollout engine on vLLM: it gets the same conversations, and the policy's weights after every update.

The backend determines whether vLLM runs in this process (``colocated``) or as a server (``server``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.engine import Completion, Group
from mm_cpgd.rollout.vllm.backend import VllmBackend, VllmCompletion
from mm_cpgd.rollout.vllm.weights import named_weights

# The strongest logit bias that vLLM accepts: it multiplies the odds of a token by e⁻¹⁰⁰.
_FORBIDDEN_BIAS = -100.0


class VllmEngine:
    """A ``RolloutEngine`` on vLLM.

    Every completion is a separate request with its own seed; vLLM's prefix cache lets the requests of a group
    share the computation of their prompt. The same seed gives the same text as far as vLLM's kernels do not
    depend on the rest of the batch.

    Args:
        policy: provides end tokens, forbidden tokens and the tokenizer.
        backend: does the sampling.
    """

    def __init__(self, policy: Policy, backend: VllmBackend) -> None:
        self.policy = policy
        self.backend = backend

    @property
    def dtype(self) -> torch.dtype | None:
        """Number format in which vLLM computes; None where it does not say, as of a server."""
        return getattr(self.backend, "dtype", None)

    def load_weights(self, policy: Policy) -> None:
        """Send the policy's weights to vLLM."""
        self.policy = policy
        self.backend.load(named_weights(policy))

    def release(self) -> None:
        """Nothing to free: vLLM has weights of its own."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``.

        Raises:
            UserError: vLLM tokenizes a prompt differently from the policy.
        """
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts, but seeds for {len(seeds)}")
        owners = [p for p, group in enumerate(seeds) for _ in group]
        conversations = [self._conversation(prompt) for prompt in prompts]
        flat = [seed for group in seeds for seed in group]
        sampled = self.backend.chat([conversations[p] for p in owners], flat, self._options(sampling))
        groups: list[Group] = [[] for _ in prompts]
        for owner, completion in zip(owners, sampled, strict=True):
            _check_prompt(prompts[owner], completion)
            groups[owner].append(self._completion(completion))
        return groups

    def _conversation(self, prompt: EncodedPrompt) -> list[dict[str, Any]]:
        """Return the prompt's messages with the images inserted."""
        if prompt.conversation is None:
            raise ValueError(
                "a prompt without its conversation cannot be sent to vLLM; encode it with PromptEncoder"
            )
        images = iter(prompt.conversation.images)

        def with_image(item: dict[str, Any]) -> dict[str, Any]:
            return self.backend.image_content(next(images).open()) if item["type"] == "image" else item

        return [
            {**message, "content": [with_image(item) for item in message["content"]]}
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
            "logit_bias": dict.fromkeys(self.policy.forbidden_ids, _FORBIDDEN_BIAS),
        }

    def _completion(self, sampled: VllmCompletion) -> Completion:
        tokens = torch.tensor(sampled.token_ids, dtype=torch.long)
        # None stands for NaN, which JSON cannot represent.
        values = [float("nan") if value is None else value for value in sampled.logprobs]
        if len(values) != len(tokens):
            raise ValueError(f"vLLM returned {len(tokens)} tokens with {len(values)} log-probabilities")
        finished = bool(len(tokens)) and int(tokens[-1]) in self.policy.end_ids
        text = self.policy.tokenizer.decode(sampled.token_ids, skip_special_tokens=True)
        return Completion(tokens, torch.tensor(values, dtype=torch.float32), text, finished)


def _check_prompt(prompt: EncodedPrompt, sampled: VllmCompletion) -> None:
    """Raise unless vLLM tokenized the prompt as the policy does, which trains on the policy's tokens."""
    own, other = prompt.input_ids.tolist(), list(sampled.prompt_ids)
    if own == other:
        return
    pairs = zip(own, other, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(own), len(other)))
    raise UserError(
        f"vLLM tokenizes a prompt differently from the policy: {len(other):,} tokens instead of "
        f"{len(own):,}, first difference at token {first:,}; give it the same chat template and image limits "
        "(policy.min_pixels and max_pixels; for a server --mm-processor-kwargs)"
    )
