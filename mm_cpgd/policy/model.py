"""Finding a vision-language model by name, and loading it as it is to be trained."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session, snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.families import refuses_shared_prefix, set_pixel_limits, vision_modules
from mm_cpgd.policy.lora import add_lora
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.prompts import PromptEncoder
from mm_cpgd.policy.shared_prefix.forward import prepare_model
from mm_cpgd.policy.vision import project_patches_as_matrices

EMBEDDED = {"embedded:tiny": Path(__file__).parent.parent / "tiny" / "assets"}
# What transformers raises for folders and names that hold no usable model.
LOADING_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)
HUB_SECONDS = 5


def load_policy(
    config: PolicyConfig,
    logprob_chunk: int = 1024,
    *,
    shared_prefix: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Policy:
    """Load model and processor by hub name, folder or ``embedded:…``; ready for rollouts (eval mode).

    Args:
        config: what to load.
        logprob_chunk: tokens whose logits exist at one time.
        shared_prefix: whether completions share their prompt's forward pass, where the family allows it.
        say: is told where the family does not.

    Raises:
        UserError: when nothing loads under that name or it is no vision-language model.
    """
    if config.lora and not config.freeze_vision:
        raise UserError(
            "policy.lora trains adapters on the language model alone; set policy.freeze_vision=true, or "
            "leave policy.lora out"
        )
    source = _Source(config)
    processor = source.processor()
    model = source.model()
    _remove_dropout(model)
    project_patches_as_matrices(model)
    if config.freeze_vision:
        for module in vision_modules(model):
            module.requires_grad_(False)
    lora = config.lora
    adapter = add_lora(model, lora.rank, lora.alpha, lora.targets) if lora else None
    if config.gradient_checkpointing:
        _checkpoint_layers(model)
    encoder = PromptEncoder(processor, model, config.system_prompt, config.prompt_template)
    if shared_prefix and (reason := refuses_shared_prefix(model)):
        say(f"no shared prefix: every completion runs its whole prompt ({reason})")
        shared_prefix = False
    if shared_prefix:
        prepare_model(model)
    return Policy(model, processor, encoder, adapter, logprob_chunk, shared_prefix).eval()


def load_processor(config: PolicyConfig) -> Any:
    """Load the processor alone; raises UserError as ``load_policy`` does."""
    return _Source(config).processor()


class _Source:
    """Where a model comes from; everything that goes wrong there is a UserError that names it."""

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
        folder = _folder(config.model)
        if folder is None and not _hub_answers():
            # At once, instead of the hub client's retries, which take half a minute a file.
            folder = _cached(config.model, config.revision)
        if folder is None:
            self.options["revision"] = config.revision
        self.name = config.model if folder is None else str(folder)

    def processor(self) -> Any:
        """Return the processor, with the pixel limits of the config."""
        kind = self._load(AutoConfig)
        if type(kind) not in AutoModelForImageTextToText._model_mapping and not self.config.trust_remote_code:
            raise UserError(
                f"policy.model={self.config.model!r} is a {kind.model_type!r} model, no image-text-to-text "
                "model; choose a vision-language model such as Qwen/Qwen2.5-VL-3B-Instruct"
            )
        processor = self._load(AutoProcessor)
        if getattr(processor, "image_processor", None) is None:
            raise UserError(
                f"policy.model={self.config.model!r} has no processor for images; copy the original model's "
                "preprocessor_config.json and its like beside the weights"
            )
        set_pixel_limits(processor, self.config.min_pixels, self.config.max_pixels)
        return processor

    def model(self) -> Any:
        """Return the model in the number format that it is to be trained in."""
        return self._load(
            AutoModelForImageTextToText, dtype=_dtype(self.config), attn_implementation=self.config.attention
        )

    def _load(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(self.name, **self.options, **options)
        except LOADING_ERRORS as error:
            reason = textwrap.shorten(" ".join(str(error).split()), 500, placeholder=" …")
            raise UserError(
                f"policy.model={self.config.model!r} could not be loaded: {reason or type(error).__name__}"
            ) from error


def _folder(model: str) -> Path | None:
    """Return the folder that ``model`` names, None for a hub name."""
    folder = EMBEDDED.get(model) or _expanded(model)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"policy.model={model!r}: the folder holds no config.json of a model")
        return folder
    if model in EMBEDDED:
        raise UserError(f"policy.model={model!r} is not in this package; `make tiny` makes it")
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or folder.exists():
        raise UserError(f"policy.model={model!r}: there is no such folder")
    return None


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~somebody who has no home here
        return Path(path)


def _cached(model: str, revision: str | None) -> Path:
    """Return the folder in the local cache that holds this hub model."""
    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise UserError(
            f"policy.model={model!r} is no folder and not in the local cache, and {constants.ENDPOINT} does "
            f"not answer; run `hf download {model}` where there is a network, or give a folder"
        ) from error


def _hub_answers() -> bool:
    """Say whether the hub can be reached; False at once in offline mode."""
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # the client's libraries have no common error
        return False
    return True


def _dtype(config: PolicyConfig) -> torch.dtype | str:
    """Return the format of the weights; autocast, not this, decides what products are computed in."""
    if config.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    # Frozen weights stay as they were published. Trained ones need float32: beside a weight of 0.01, a step
    # of 1e-6 is below bfloat16's resolution and would be lost.
    return "auto" if config.lora and torch.cuda.is_available() else torch.float32


def _checkpoint_layers(model: Any) -> None:
    """Keep only the layers' inputs of a forward pass in training mode; the backward pass repeats the rest."""
    # The newer name in transformers; the older one is deprecated.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # It makes embeddings and patches ask for gradients, as reentrant checkpointing needs; here that would
    # only send a gradient through the frozen vision tower.
    model.disable_input_require_grads()


def _remove_dropout(model: nn.Module) -> None:
    """Switch dropout off also in training mode: the ratio of new to old must start at exactly one."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
