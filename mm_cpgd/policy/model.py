"""Loading of a vision-language model by hub name, folder or ``embedded:…``, prepared for training."""

from __future__ import annotations

import contextlib
import pickle
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session, snapshot_download
from safetensors import SafetensorError
from torch import nn
from torch.utils._triton import has_triton
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.checkpointing import checkpoint_layers
from mm_cpgd.policy.families import (
    decoder_layers,
    image_token_id,
    language_model,
    set_pixel_limits,
    shared_prefix_obstacle,
    vision_parameters,
)
from mm_cpgd.policy.lora.adapters import start_from
from mm_cpgd.policy.lora.layers import add_lora
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.prompts import PromptEncoder
from mm_cpgd.policy.quantization import keep_one_layout, quantization_options
from mm_cpgd.policy.shared_prefix.compiled import compile_layers
from mm_cpgd.policy.shared_prefix.forward import enable_shared_prefix
from mm_cpgd.policy.support import (
    check_architecture,
    check_complete,
    check_finite,
    check_parts,
    check_template,
    without_loading_report,
)
from mm_cpgd.policy.vision import project_patches_as_matrices
from mm_cpgd.policy.visual.attention import attend_within_segments

EMBEDDED = {"embedded:tiny": Path(__file__).parent.parent / "tiny" / "assets"}
# Exceptions of transformers for folders and names without a usable model.
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
# Weights of all layers from which on ``policy.compile=auto`` compiles them.
COMPILED_WEIGHTS = 100_000_000
LFS_POINTER = b"version https://git-lfs"


def load_policy(
    config: PolicyConfig,
    logprob_chunk: int = 1024,
    *,
    shared_prefix: bool = True,
    samples: bool = True,
    weights: bool = True,
    as_stored: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Policy:
    """Load model and processor by hub name, folder or ``embedded:…``, in evaluation mode.

    Args:
        config: the config's policy section.
        logprob_chunk: tokens whose logits exist at a time.
        shared_prefix: whether completions share their prompt's forward pass, if the family supports it.
        samples: whether completions are sampled with the model itself, and not by vLLM.
        weights: whether to load the weights; without them the model has meta tensors.
        as_stored: keep the weights in the number format of their files, until they are sharded.
        say: called with one line if the family does not.

    Raises:
        UserError: nothing can be loaded under that name, or only in part; it is not a vision-language model,
            or one whose architecture, chat template or weights cannot be used.
    """
    if config.lora and not config.freeze_vision:
        raise UserError(
            "policy.lora trains adapters alone; set policy.freeze_vision=true (and policy.lora.vision=true "
            "for adapters on the vision tower too), or leave policy.lora out"
        )
    source = _ModelSource(config)
    processor = source.processor(samples)
    model = source.model(as_stored) if weights else source.empty_model()
    return prepare_policy(model, processor, config, logprob_chunk, shared_prefix=shared_prefix, say=say)


def prepare_policy(
    model: Any,
    processor: Any,
    config: PolicyConfig,
    logprob_chunk: int = 1024,
    *,
    shared_prefix: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Policy:
    """Make a policy of a loaded model, as the config's policy section says; the model is changed in place.

    Args:
        model: with its language head.
        processor: the same model's.
        config: frozen parts, adapters, checkpointing and prompts.
        logprob_chunk: see ``load_policy``.
        shared_prefix: see ``load_policy``.
        say: see ``load_policy``.
    """
    _remove_dropout(model)
    project_patches_as_matrices(model)
    attend_within_segments(model)
    if config.freeze_vision:
        for parameter in vision_parameters(model):
            parameter.requires_grad_(False)
    adapter = _add_adapters(model, config.lora) if config.lora else None
    if config.gradient_checkpointing:
        checkpoint_layers(model, config.gradient_checkpointing)
    encoder = PromptEncoder.of(config, processor, model)
    if shared_prefix and (reason := shared_prefix_obstacle(model)):
        say(f"no shared prefix: the prompt is recomputed for every completion ({reason})")
        shared_prefix = False
    if shared_prefix:
        enable_shared_prefix(model)
        if compilation_pays(model) if config.compile == "auto" else config.compile:
            required = config.compile is True
            compile_layers(language_model(model), config.gradient_checkpointing, required=required)
    elif config.compile is True:
        say("the layers are not compiled: that needs a shared prefix")
    return Policy(
        model,
        processor,
        encoder,
        adapter,
        logprob_chunk,
        shared_prefix,
        starts_from_adapters=config.lora is not None and config.lora.adapter is not None,
    ).eval()


def _add_adapters(model: Any, lora: LoraConfig) -> Any:
    adapter = add_lora(model, lora.rank, lora.alpha, lora.targets, vision=lora.vision, dora=lora.dora)
    if lora.adapter is not None:
        start_from(model, adapter, _expand_user(lora.adapter))
    return adapter


def load_processor(config: PolicyConfig, *, samples: bool = True) -> Any:
    """Load the processor alone; raises UserError as ``load_policy`` does."""
    return _ModelSource(config).processor(samples)


class _ModelSource:
    """Origin of model and processor; every loading problem is a UserError that names the model."""

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
        folder = local_folder(config.model)
        if folder is None and not hub_reachable():
            # Fails immediately, where the hub client would retry for half a minute per file.
            folder = _cached_snapshot(config.model, config.revision)
        if folder is None:
            self.options["revision"] = config.revision
        self.name = config.model if folder is None else str(folder)

    def processor(self, samples: bool) -> Any:
        """Load the processor and set the config's pixel limits; ``samples`` as for ``load_policy``."""
        kind = self._load(AutoConfig)
        known = AutoModelForImageTextToText._model_mapping
        if type(kind) not in known and not self.config.trust_remote_code:
            raise UserError(
                f"policy.model={self.config.model!r} is a {kind.model_type!r} model, not an "
                "image-text-to-text model; choose a vision-language model such as Qwen/Qwen2.5-VL-3B-Instruct"
            )
        if samples:
            check_architecture(self.config.model, kind, known.get(type(kind), None))
        processor = self._load(AutoProcessor)
        if getattr(processor, "image_processor", None) is None:
            raise UserError(
                f"policy.model={self.config.model!r} has no image processor; copy "
                "preprocessor_config.json and the original model's other processor files beside the weights"
            )
        set_pixel_limits(processor, self.config.min_pixels, self.config.max_pixels)
        encoder = PromptEncoder(processor, None, self.config.system_prompt)
        check_template(self.config.model, encoder, image_token_id(kind))
        return processor

    def empty_model(self) -> Any:
        """Return the model of meta tensors, as the main process of a run with sharded weights fills it."""
        kind = self._load(AutoConfig)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(
                kind,
                attn_implementation=self.config.attention,
                trust_remote_code=self.config.trust_remote_code,
            )
        with contextlib.suppress(OSError):  # a model without the file has what its config says
            model.generation_config = GenerationConfig.from_pretrained(self.name, **self._revision())
        check_parts(self.config.model, model)
        return model

    def _revision(self) -> dict[str, Any]:
        return {"revision": self.options["revision"]} if "revision" in self.options else {}

    def model(self, as_stored: bool = False) -> Any:
        """Load the model, all of it, in the number format of training or, if wanted, of its files."""
        dtype = training_dtype(self.config)
        packing = quantization_options(self.config.lora.quantize if self.config.lora else None, dtype)
        with without_loading_report() as reports:
            model, info = self._load(
                AutoModelForImageTextToText,
                dtype="auto" if as_stored else dtype,
                **packing,
                attn_implementation=self.config.attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
            )
        keep_one_layout(model)
        check_complete(self.config.model, info, reports)
        check_parts(self.config.model, model)
        check_finite(self.config.model, model)
        return model

    def _load(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(self.name, **self.options, **options)
        except Exception as error:  # files of a model, damaged in any way, raise anything
            raise UserError(
                f"policy.model={self.config.model!r} could not be loaded: {self._reason(error)}"
            ) from error

    def _reason(self, error: Exception) -> str:
        """Return why loading failed, in one line."""
        folder = Path(self.name)
        if pointers := [path.name for path in sorted(folder.glob("*")) if _is_lfs_pointer(path)]:
            return f"{pointers[0]} is a Git LFS pointer, not the file itself; run `git lfs pull` in {folder}"
        if (folder / "adapter_config.json").exists() and not list(folder.glob("model*.safetensors")):
            return (
                "the folder holds adapters without a model; merge them into their base model (peft: "
                "merge_and_unload, then save_pretrained), and name the folder of the merged model"
            )
        text = textwrap.shorten(" ".join(str(error).split()), 500, placeholder=" …")
        if isinstance(error, LOADING_ERRORS):
            return text or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            return (
                "its weights are a pickle that holds more than tensors, of which nothing is executed; "
                "use weights in safetensors format"
            )
        return f"{type(error).__name__}: {text}"


def _is_lfs_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:  # a folder, or a file that may not be read
        return False


def local_folder(model: str) -> Path | None:
    """Return the local folder that ``model`` names, None for a hub name."""
    folder = EMBEDDED.get(model) or _expand_user(model)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"policy.model={model!r}: the folder contains no config.json of a model")
        return folder
    if model in EMBEDDED:
        raise UserError(f"policy.model={model!r} is not in this package; `make tiny` builds it")
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or folder.exists():
        raise UserError(f"policy.model={model!r}: no such folder")
    return None


def _expand_user(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~user without a home directory
        return Path(path)


def _cached_snapshot(model: str, revision: str | None) -> Path:
    """Return the folder of this hub model in the local cache."""
    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise UserError(
            f"policy.model={model!r} is neither a folder nor in the local cache, and {constants.ENDPOINT} is "
            f"not reachable; run `hf download {model}` with a network connection, or name a folder"
        ) from error


def hub_reachable() -> bool:
    """Return whether the hub can be reached; False without a request in offline mode."""
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # the client's libraries have no common base class
        return False
    return True


def training_dtype(config: PolicyConfig) -> torch.dtype | str:
    """Return the number format of the weights; autocast decides the format of matrix products."""
    if config.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    # Frozen weights keep their published format. Trained ones need float32: at a weight of 0.01, a step of
    # 1e-6 is below bfloat16's resolution and would be lost.
    return "auto" if config.lora and torch.cuda.is_available() else torch.float32


def compilation_pays(model: Any) -> bool:
    """Return whether compiling the layers costs less time than it saves within a few iterations."""
    weights = sum(value.numel() for layer in decoder_layers(model) for value in layer.parameters())
    return torch.cuda.is_available() and has_triton() and weights >= COMPILED_WEIGHTS


def _remove_dropout(model: nn.Module) -> None:
    """Disable dropout in training mode too: the ratio π/π_old must start at exactly one."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
