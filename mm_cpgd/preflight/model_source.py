"""Sources of a model's dimensions for a plan: a file, a folder, the hub or its cache, or this package.

No weights are read. Of the hub only ``config.json`` and the processor's small files are, and never its code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from transformers import AutoConfig

from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.model import LOADING_ERRORS, hub_reachable, local_folder

CONFIG = "config.json"
# Public models whose dimensions come with this package: OWNER/NAME is the file NAME.json.
OWNER = "Qwen"
MODELS = Path(__file__).parent / "models"
# A folder with none of these has no processor.
PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "chat_template.jinja",
)


class ModelOutOfReach(UserError):
    """Nothing here knows the model, and the hub cannot be asked."""


@dataclass(frozen=True)
class FoundConfig:
    """Config of a model, and where it was found.

    Attributes:
        config: as transformers reads it.
        source: that place, in words.
        folder: the local folder it lies in, of which the user may have allowed to run code; None: any other.
    """

    config: Any
    source: str
    folder: Path | None = None


def find_config(policy: PolicyConfig, file: Path | None = None) -> FoundConfig:
    """Return the config of the policy's model.

    Args:
        policy: the config's policy section.
        file: a ``config.json``, or a folder with one, to use in place of ``policy.model``.

    Raises:
        ModelOutOfReach: a hub model that is neither cached nor listed here, while the hub cannot be reached.
        UserError: there is no such folder, file or hub model, or it cannot be read.
    """
    if file is not None:
        path = file / CONFIG if file.is_dir() else file
        if not path.is_file():
            raise UserError(f"--model-config {file}: no such file; name a model's {CONFIG} or its folder")
        return FoundConfig(_read(path, policy), f"{path} (--model-config)")
    folder = local_folder(policy.model)
    if folder is not None:
        found = _read(folder / CONFIG, policy, remote_code=policy.trust_remote_code)
        return FoundConfig(found, f"{CONFIG} in {folder}", folder)
    if hub_reachable():
        path = _download(policy)
        return FoundConfig(_read(path, policy), f"{CONFIG} of {policy.model} at {constants.ENDPOINT}")
    cached = try_to_load_from_cache(policy.model, CONFIG, revision=policy.revision)
    if isinstance(cached, str):
        return FoundConfig(_read(Path(cached), policy), f"{CONFIG} in the hub's local cache")
    return _listed(policy)


def has_processor(policy: PolicyConfig) -> bool:
    """Return whether processor files can be had for the policy's model; not whether they are of use.

    Raises:
        UserError: there is no such folder.
    """
    folder = local_folder(policy.model)
    if folder is not None:
        return any((folder / name).is_file() for name in PROCESSOR_FILES)
    if hub_reachable():
        return True
    cached = (
        try_to_load_from_cache(policy.model, name, revision=policy.revision) for name in PROCESSOR_FILES
    )
    return any(isinstance(found, str) for found in cached)


def is_out_of_reach(path: str) -> bool:
    """Return whether a source of rows is a hub dataset while the hub cannot be reached."""
    is_name = path.count("/") == 1 and ":" not in path and not Path(path).suffix
    return is_name and not Path(path).exists() and not hub_reachable()


@contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's clients from using the network within the block."""
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def without_hub_code(policy: PolicyConfig) -> PolicyConfig:
    """Return the policy section for a plan, which runs code of local folders only, and only if allowed."""
    if local_folder(policy.model) is not None:
        return policy
    return policy.model_copy(update={"trust_remote_code": False})


def listed_models() -> list[str]:
    """Return the hub names of the models whose dimensions come with this package."""
    return sorted(f"{OWNER}/{file.name.removesuffix('.json')}" for file in MODELS.glob("*.json"))


def _listed(policy: PolicyConfig) -> FoundConfig:
    if policy.model in listed_models():
        file = MODELS / f"{policy.model.removeprefix(f'{OWNER}/')}.json"
        return FoundConfig(_read(file, policy), "the dimensions that come with mm-cpgd; no network is needed")
    raise ModelOutOfReach(
        f"policy.model={policy.model!r} is neither a folder nor in the local cache, and {constants.ENDPOINT} "
        f"is not reachable; give --model-config FILE with its {CONFIG}, or run `hf download {policy.model} "
        f"{CONFIG}` with a network connection"
    )


def _download(policy: PolicyConfig) -> Path:
    try:
        return Path(hf_hub_download(policy.model, CONFIG, revision=policy.revision))
    except (OSError, ValueError) as error:
        raise UserError(
            f"policy.model={policy.model!r}: {constants.ENDPOINT} does not give its {CONFIG}: "
            f"{_line(error)}; run `hf auth login` if access is restricted, or give --model-config FILE"
        ) from error


def _read(file: Path, policy: PolicyConfig, *, remote_code: bool = False) -> Any:
    # From the folder where code is allowed: the config names files of code beside it.
    name = file.parent if remote_code else file
    try:
        if not isinstance(json.loads(file.read_text(encoding="utf-8")), dict):
            raise ValueError("it holds no object")
        return AutoConfig.from_pretrained(str(name), trust_remote_code=remote_code, local_files_only=True)
    except (*LOADING_ERRORS, RecursionError) as error:
        raise UserError(f"policy.model={policy.model!r}: {file} cannot be used: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
