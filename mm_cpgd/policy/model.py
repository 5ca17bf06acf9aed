"""Loading a vision-language model and asking it for log-probabilities."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from mm_cpgd.config import LoraConfig, PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import EncodedPrompt, collate_rows
from mm_cpgd.policy.families import base_model, control_token_ids, vision_modules
from mm_cpgd.policy.logprobs import token_logprobs
from mm_cpgd.policy.prompts import PromptEncoder

EMBEDDED = {"embedded:tiny": Path(__file__).parent.parent / "assets" / "tiny"}
# The package's own errors, and what the hub raises for a name that does not exist or cannot be reached.
LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError)


class Policy(nn.Module):
    """A vision-language model, its processor and, where asked for, its frozen reference.

    The module's own parameters are those of ``model``.

    Args:
        model: with its language head; adapters may be inside.
        processor: of the same model.
        encoder: writes prompts.
        adapter: the peft wrapper around ``model``, or None.
        logprob_chunk: tokens whose logits exist at one time.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        encoder: PromptEncoder,
        adapter: Any = None,
        logprob_chunk: int = 1024,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.processor = processor
        self.encoder = encoder
        self.logprob_chunk = logprob_chunk
        self.adapter: Any
        self.reference: Any
        # Kept out of nn.Module's registry: the adapter and the reference are not this module's parameters.
        self.__dict__["adapter"] = adapter
        self.__dict__["reference"] = None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def pad_id(self) -> int:
        """The token that fills what is masked."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.end_ids[0]

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a completion."""
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        return sorted({int(i) for i in [*ids, self.tokenizer.eos_token_id] if i is not None})

    @property
    def forbidden_ids(self) -> list[int]:
        """Tokens that are never sampled: image and video tokens."""
        return sorted(control_token_ids(self.model) - set(self.end_ids))

    def forward(
        self,
        prompts: Sequence[EncodedPrompt],
        completions: Tensor,
        mask: Tensor,
        entropy_gradient: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Compute log π and entropy of completion tokens.

        Args:
            prompts: n prompts, one a row.
            completions: (n, T) token ids.
            mask: (n, T) True where a token is the completion's own.
            entropy_gradient: whether the entropy carries a gradient.

        Returns:
            log-probabilities (n, T) and entropies in nats (n, T); 0 where the mask is False.
        """
        lengths = mask.sum(1).tolist()
        own = [row[:length] for row, length in zip(completions, lengths, strict=True)]
        batch = _to(collate_rows(prompts, own, self.pad_id), self.device)
        hidden = base_model(self.model)(**batch, use_cache=False).last_hidden_state
        rows, columns = mask.to(self.device).nonzero(as_tuple=True)
        starts = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        # The hidden state one place before a token predicts it.
        states = hidden[rows, starts[rows] + columns - 1]
        targets = completions.to(self.device)[rows, columns]
        head = self.model.get_output_embeddings()
        values, entropies = token_logprobs(
            states, head, targets, chunk=self.logprob_chunk, entropy_gradient=entropy_gradient
        )
        empty = torch.zeros(mask.shape, dtype=values.dtype, device=self.device)
        return empty.index_put((rows, columns), values), empty.index_put((rows, columns), entropies)

    def keep_reference(self) -> None:
        """Remember the policy as it is now; adapters need no copy, full training holds a frozen one."""
        if self.adapter is None:
            frozen = copy.deepcopy(self.model).eval().requires_grad_(False)
            self.__dict__["reference"] = frozen

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Policy]:
        """Give the reference policy for the length of the block."""
        if self.adapter is not None:
            with self.adapter.disable_adapter():
                yield self
        elif self.reference is None:
            raise RuntimeError("keep_reference() was not called")
        else:
            reference = Policy(
                self.reference.to(self.device), self.processor, self.encoder, None, self.logprob_chunk
            )
            yield reference

    def save(self, folder: Path) -> None:
        """Write a plain ``from_pretrained`` folder; adapters are merged into a copy of the weights."""
        model: Any = self.model
        if self.adapter is not None:
            merged = copy.deepcopy(self.adapter)
            model = merged.merge_and_unload()
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_policy(config: PolicyConfig, logprob_chunk: int = 1024) -> Policy:
    """Load model and processor by hub name, folder or ``embedded:…``.

    Raises:
        UserError: when nothing loads under that name or it is no vision-language model.
    """
    processor = load_processor(config)
    source, options = _source(config)
    dtype = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, attn_implementation=config.attention, **options
        )
    except LOADING_ERRORS as error:
        raise UserError(f"policy.model={config.model!r} could not be loaded: {_first_line(error)}") from error
    if config.freeze_vision:
        for module in vision_modules(model):
            module.requires_grad_(False)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    adapter = _add_lora(model, config.lora) if config.lora else None
    encoder = PromptEncoder(processor, model, config.system_prompt, config.prompt_template)
    _remove_dropout(model)
    return Policy(model.eval(), processor, encoder, adapter, logprob_chunk)


def load_processor(config: PolicyConfig) -> Any:
    """Load the processor alone; raises UserError as ``load_policy`` does."""
    source, options = _source(config)
    try:
        kind = AutoConfig.from_pretrained(source, **options)
        if type(kind) not in AutoModelForImageTextToText._model_mapping and not config.trust_remote_code:
            raise UserError(
                f"policy.model={config.model!r} is a {kind.model_type!r} model, no image-text-to-text model; "
                "choose a vision-language model such as Qwen/Qwen2.5-VL-3B-Instruct"
            )
        processor = AutoProcessor.from_pretrained(source, **options)
    except UserError:
        raise
    except LOADING_ERRORS as error:
        raise UserError(f"policy.model={config.model!r} could not be loaded: {_first_line(error)}") from error
    if not hasattr(processor, "image_processor"):
        raise UserError(f"policy.model={config.model!r} has no image processor, so it cannot be shown images")
    size = dict(processor.image_processor.size)
    if config.min_pixels:
        size["shortest_edge"] = config.min_pixels
    if config.max_pixels:
        size["longest_edge"] = config.max_pixels
    if config.min_pixels or config.max_pixels:
        processor.image_processor.size = type(processor.image_processor.size)(**size)
    return processor


def _source(config: PolicyConfig) -> tuple[str, dict[str, Any]]:
    folder = EMBEDDED.get(config.model, Path(config.model))
    looks_local = config.model in EMBEDDED or config.model.startswith((".", "/", "~"))
    folder = folder.expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"policy.model={config.model!r}: the folder holds no config.json of a model")
        return str(folder), {"trust_remote_code": config.trust_remote_code}
    if looks_local:
        raise UserError(f"policy.model={config.model!r}: there is no such folder")
    return config.model, {"revision": config.revision, "trust_remote_code": config.trust_remote_code}


def _remove_dropout(model: nn.Module) -> None:
    """Switch dropout off also in training mode: the ratio of new to old must start at exactly one."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


def _add_lora(model: Any, lora: LoraConfig) -> Any:
    """Put adapters on the language model, in place; the vision tower gets none."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    vision = {name for name, module in model.named_modules() if module in vision_modules(model)}
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings()
    ]
    targets = [name for name in linear if not any(name.startswith(f"{tower}.") for tower in vision)]
    if lora.targets != "all-linear":
        targets = [name for name in targets if name.rsplit(".", 1)[-1] in lora.targets]
    if not targets:
        raise UserError(f"policy.lora.targets={lora.targets!r} names no linear layer of the language model")
    settings = PeftConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)
    return get_peft_model(model, settings)


def _to(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
