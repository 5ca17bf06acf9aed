"""Which weights a model's name stands for: one state of them told from every other, without loading them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from eval.cache import digest

# What decides answers; optimizer states and read-me files do not.
_KINDS = {".json", ".jinja", ".safetensors", ".bin", ".pt", ".model", ".txt", ".py"}
# Larger files are weights: their size, time and head stand for them, for hashing 15 GB takes a minute.
_WHOLE = 64 << 20
_HEAD = 1 << 20
HUB_SECONDS = 5


def folder_fingerprint(folder: Path) -> str:
    """Return a hash of a model folder; a rewritten one has another, and a copy of large weights too."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _KINDS and path.is_file())
    return digest([[path.name, *_of_file(path)] for path in files])[:16]


def _of_file(path: Path) -> list[Any]:
    status = path.stat()
    found = hashlib.sha256()
    with path.open("rb") as file:
        if status.st_size > _WHOLE:
            found.update(file.read(_HEAD))
            return [status.st_size, status.st_mtime_ns, found.hexdigest()]
        while part := file.read(_HEAD):
            found.update(part)
    return [status.st_size, found.hexdigest()]


def hub_commit(model: str, revision: str | None) -> str | None:
    """Return the commit of a hub name now, from the hub or the local cache; None if neither knows."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        return HfApi().model_info(model, revision=revision, timeout=HUB_SECONDS).sha
    except (
        Exception
    ):  # no network, offline mode, an unknown name: the client's libraries have no common error
        pass
    try:
        path = try_to_load_from_cache(model, "config.json", revision=revision)
    except ValueError:  # not a hub name at all
        return None
    return Path(path).parent.name if isinstance(path, str) else None
