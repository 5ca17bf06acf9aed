"""Policy: log-probabilities of completions, the reference policy, and saving."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mm_cpgd.policy.batch import EncodedPrompt, collate_rows
from mm_cpgd.policy.conversation.suffix import Suffix, extend_rows, suffix_lengths
from mm_cpgd.policy.distribution import KeptTokens, Sampling, kept_mass, kept_of, sampling_logits
from mm_cpgd.policy.families import base_model, control_token_ids
from mm_cpgd.policy.logprobs import allowed_logits, drawn_logprobs, token_logprobs
from mm_cpgd.policy.lora.adapters import adapter_files
from mm_cpgd.policy.lora.layers import is_quantized, merged_weights
from mm_cpgd.policy.prompts import PromptEncoder
from mm_cpgd.policy.sharding.saving import save_gathered, transposes_experts
from mm_cpgd.policy.sharding.tensors import forget_gathered, is_sharded, local_value
from mm_cpgd.policy.shared_prefix.forward import hidden_states
from mm_cpgd.policy.shared_prefix.packing import pack, unique_prompts
from mm_cpgd.policy.vision import VisionFeatureCache

# Folder of the adapters beside the merged model.
ADAPTER_FOLDER = "adapter"
# Of each row of a batch, None for those without observations; None: no row has any.
Suffixes = Sequence[Suffix | None] | None


class Policy(nn.Module):
    """A vision-language model, its processor and, if kept, its reference policy.

    The module's parameters are those of ``model``.

    Args:
        model: with its language head; adapters may be inside.
        processor: the same model's processor.
        encoder: encodes examples as prompts.
        adapter: the peft wrapper around ``model``, or None.
        logprob_chunk: tokens whose logits exist at a time.
        shared_prefix: whether rows with the same prompt share its forward pass; requires
            ``enable_shared_prefix(model)``.
        starts_from_adapters: whether the adapters have values of an earlier training, so that the policy at
            the start is not the model without them.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        encoder: PromptEncoder,
        adapter: Any = None,
        logprob_chunk: int = 1024,
        shared_prefix: bool = False,
        *,
        starts_from_adapters: bool = False,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.processor = processor
        self.encoder = encoder
        self.logprob_chunk = logprob_chunk
        self.shared_prefix = shared_prefix
        self.starts_from_adapters = starts_from_adapters
        self.vision_cache = VisionFeatureCache(model)
        self.adapter: Any
        self.reference: Any
        # Not registered with nn.Module: adapter and reference do not add parameters to this module.
        self.__dict__["adapter"] = adapter
        self.__dict__["reference"] = None
        # Of adapters that the run starts from: this process's part of their first values.
        self.first_adapters: dict[str, Tensor] | None = None
        self._unused_ids: set[int] | None = None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def pad_id(self) -> int:
        """The padding token."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.end_ids[0]

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a completion."""
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        return sorted({int(i) for i in [*ids, self.tokenizer.eos_token_id] if i is not None})

    @property
    def head_rows(self) -> int:
        """V, rows of the language head."""
        head = self.model.get_output_embeddings()
        rows = getattr(head, "out_features", None)
        return int(rows if rows is not None else self.model.config.get_text_config().vocab_size)

    @property
    def forbidden_ids(self) -> list[int]:
        """Tokens of probability 0: image and video tokens, and rows of the head that no token has.

        Published models have more rows in the head than their tokenizer has tokens (Qwen2.5-VL-7B: 152,064
        and 151,665); what such a row stands for cannot be decoded.
        """
        if self._unused_ids is None:
            known = set(self.tokenizer.get_vocab().values())
            self._unused_ids = set(range(self.head_rows)) - known
        return sorted((control_token_ids(self.model) | self._unused_ids) - set(self.end_ids))

    @property
    def forbidden(self) -> Tensor:
        """``forbidden_ids`` as a tensor on the device of the weights."""
        return torch.tensor(self.forbidden_ids, dtype=torch.long, device=self.device)

    def forward(
        self,
        prompts: Sequence[EncodedPrompt],
        completions: Tensor,
        mask: Tensor,
        entropy_gradient: bool = False,
        temperature: float = 1.0,
        kept: KeptTokens | None = None,
        suffixes: Suffixes = None,
        draws: tuple[Tensor, float] | None = None,
    ) -> tuple[Tensor, ...]:
        """Compute log π and entropy of completion tokens, in the distribution that they were sampled from.

        Args:
            prompts: n prompts, one per row; rows with the same object share its forward pass if the family
                supports it.
            completions: (n, T) token ids.
            mask: (n, T) True where a token is the completion's own.
            entropy_gradient: whether the entropy carries a gradient.
            temperature: of sampling; the logits are divided by it.
            kept: the tokens that the sampler's cuts left, over which π is normalised; None: all but the
                forbidden ones.
            suffixes: of each row whose completion has observations, whose tokens are False in the mask; None:
                no row has any.
            draws: uniform numbers (n, T, K) in [0, 1) and a temperature, to draw K tokens at each position
                from π at that temperature; None: none are drawn.

        Returns:
            log-probabilities (n, T) and entropies in nats (n, T); 0 where the mask is False. With ``draws``
            also log π (n, T, K) of the drawn tokens and whether each is the completion's own, (n, T, K) bool.
        """
        hidden, rows, columns = self._hidden_states(prompts, completions, mask, suffixes)
        head, targets = self.model.get_output_embeddings(), completions[rows, columns].to(self.device)
        options: dict[str, Any] = {
            "chunk": self.logprob_chunk,
            "entropy_gradient": entropy_gradient,
            "temperature": temperature,
            "forbidden": self.forbidden,
            "kept": None if kept is None else _to_device(kept.at(rows, columns), self.device),
        }
        found: tuple[Tensor, ...]
        if draws is None:
            found = token_logprobs(hidden, head, targets, **options)
        else:
            uniforms = draws[0][rows, columns].to(self.device)
            found = drawn_logprobs(hidden, head, targets, uniforms, draw_temperature=draws[1], **options)
        indices = (rows.to(self.device), columns.to(self.device))
        return tuple(
            values.new_zeros(*mask.shape, *values.shape[1:]).index_put(indices, values) for values in found
        )

    @torch.no_grad()
    def kept_tokens(
        self,
        prompts: Sequence[EncodedPrompt],
        completions: Tensor,
        mask: Tensor,
        sampling: Sampling,
        suffixes: Suffixes = None,
    ) -> KeptTokens:
        """Compute which tokens the cuts leave at each position, for engines that do not report them.

        A completion's own token is always kept: the engine rounds differently, and has drawn it.

        Args:
            prompts: n prompts, as for ``forward``.
            completions: (n, T) token ids.
            mask: (n, T) True where a token is the completion's own.
            sampling: its temperature and cuts.
            suffixes: as for ``forward``.
        """
        hidden, rows, columns = self._hidden_states(prompts, completions, mask, suffixes)
        head = self.model.get_output_embeddings()
        tokens = completions[rows, columns].to(self.device).unsqueeze(1)
        found = []
        for states, own in zip(
            hidden.split(self.logprob_chunk), tokens.split(self.logprob_chunk), strict=True
        ):
            logits = sampling_logits(allowed_logits(head(states).float(), forbidden=self.forbidden), sampling)
            found.append(kept_of(logits.scatter(1, own, 0.0)))
        counts, ids = (torch.cat(values).cpu() for values in zip(*found, strict=True))
        return KeptTokens.at_positions(mask.shape, rows.cpu(), columns.cpu(), counts, ids)

    @torch.no_grad()
    def kept_mass(
        self,
        prompts: Sequence[EncodedPrompt],
        completions: Tensor,
        mask: Tensor,
        sampling: Sampling,
        suffixes: Suffixes = None,
    ) -> Tensor:
        """Return ln of the probability (n, T) that the cuts leave at each position; as ``kept_tokens``."""
        hidden, rows, columns = self._hidden_states(prompts, completions, mask, suffixes)
        head = self.model.get_output_embeddings()
        tokens = completions[rows, columns].to(self.device)
        pieces = zip(hidden.split(self.logprob_chunk), tokens.split(self.logprob_chunk), strict=True)
        found = [
            kept_mass(allowed_logits(head(states).float(), forbidden=self.forbidden), own, sampling)
            for states, own in pieces
        ]
        table = torch.zeros(mask.shape)
        table[rows.cpu(), columns.cpu()] = torch.cat(found).cpu()
        return table

    def _hidden_states(
        self, prompts: Sequence[EncodedPrompt], completions: Tensor, mask: Tensor, suffixes: Suffixes
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the hidden states (Y, H) that predict the tokens at rows (Y,) and columns (Y,)."""
        if self.shared_prefix:
            return self._packed_states(prompts, completions, mask, suffixes)
        return self._padded_states(prompts, completions, mask, suffixes)

    def _packed_states(
        self, prompts: Sequence[EncodedPrompt], completions: Tensor, mask: Tensor, suffixes: Suffixes
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return them from one sequence in which rows with the same prompt share it."""
        unique, prompt_of = unique_prompts(prompts)
        batch = pack(unique, prompt_of, completions, mask, suffixes)
        hidden = hidden_states(self.model, self.vision_cache, unique, batch)
        return hidden[batch.predictors.to(self.device)], batch.rows, batch.columns

    def _padded_states(
        self, prompts: Sequence[EncodedPrompt], completions: Tensor, mask: Tensor, suffixes: Suffixes
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return them from a padded batch in which each row contains its prompt; for any family."""
        lengths = suffix_lengths(mask).tolist()
        own = [row[:length] for row, length in zip(completions, lengths, strict=True)]
        starts = torch.tensor([len(prompt) for prompt in prompts])
        if suffixes is not None:
            prompts, own = extend_rows(prompts, own, suffixes)
        batch = _to(collate_rows(prompts, own, self.pad_id), self.device)
        hidden = base_model(self.model)(**batch, use_cache=False).last_hidden_state
        rows, columns = mask.nonzero(as_tuple=True)
        # The hidden state at the position before a token predicts it.
        indices = (rows.to(self.device), (starts[rows] + columns - 1).to(self.device))
        return hidden[indices], rows, columns

    def keep_reference(self) -> None:
        """Keep the current policy as reference: a frozen copy; with new adapters, the model without them.

        Of adapters that the policy starts from, their values are kept. Of sharded weights ``shard_policy``
        keeps a copy.
        """
        if self.adapter is None:
            frozen = copy.deepcopy(self.model).eval().requires_grad_(False)
            self.__dict__["reference"] = frozen
        elif self.starts_from_adapters:
            self.first_adapters = {name: value.clone() for name, value in self._adapter_values().items()}

    def _adapter_values(self) -> dict[str, Tensor]:
        """Return this process's part of the adapters, in the same memory."""
        named = self.model.named_parameters()
        return {name: local_value(parameter) for name, parameter in named if ".lora_" in name}

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Policy]:
        """Yield the reference policy; valid within the ``with`` block."""
        if self.first_adapters is not None:
            with self._exchanged_adapters(self.first_adapters):
                yield self
        elif self.adapter is not None:
            with self.adapter.disable_adapter():
                yield self
        elif self.reference is None:
            raise RuntimeError("keep_reference() was not called")
        elif isinstance(self.reference, Policy):
            yield self.reference
        else:
            reference = Policy(
                self.reference.to(self.device),
                self.processor,
                self.encoder,
                None,
                self.logprob_chunk,
                self.shared_prefix,
            )
            if self.vision_cache.frozen:
                reference.vision_cache = self.vision_cache
            yield reference

    @contextlib.contextmanager
    def _exchanged_adapters(self, others: Mapping[str, Tensor]) -> Iterator[None]:
        """Give the adapters other values for a while; nothing may be differentiated meanwhile."""
        forget_gathered(self)
        present = self._adapter_values()
        kept = {name: value.clone() for name, value in present.items()}
        for name, value in others.items():
            present[name].copy_(value)
        try:
            yield
        finally:
            forget_gathered(self)
            for name, value in kept.items():
                present[name].copy_(value)

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write a ``from_pretrained`` folder with the adapters merged in, and the adapters alone beside it.

        The live policy does not change.

        Args:
            folder: created if absent; adapters are in its folder ``adapter``.
            write: whether this process writes; sharded weights are gathered on all processes.
        """
        sharded = any(is_sharded(parameter) for parameter in self.model.parameters())
        # What transformers itself would write packed, or as only it reads it, is written like shards.
        if sharded or (write and (is_quantized(self.model) or transposes_experts(self.model))):
            save_gathered(self.model, folder, write=write)
        elif write:
            weights = None if self.adapter is None else merged_weights(self.model)
            self.model.save_pretrained(folder, state_dict=weights)
        if self.adapter is not None and (sharded or write):
            files = adapter_files(self.model, self.adapter, self.model.name_or_path)
            if write:
                (folder / ADAPTER_FOLDER).mkdir(exist_ok=True)
                files.write(folder / ADAPTER_FOLDER)
        if write:
            self.processor.save_pretrained(folder)


def _to_device(values: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    return values[0].to(device), values[1].to(device)


def _to(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
