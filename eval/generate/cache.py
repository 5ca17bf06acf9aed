"""Cache of generations, keyed by everything that determines them: only what changed is generated again.

One JSON object per line, appended as generations arrive. A line that is truncated, damaged or tampered with
fails its checksum and is skipped, and its text is generated again. Plain Python, no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from data import DataError

try:
    import fcntl
except ImportError:  # Windows, where writing each line in one call has to suffice
    fcntl = None  # type: ignore[assignment]

# Part of every key: increased when the meaning of a stored generation changes.
VERSION = 1


@dataclass(frozen=True)
class Generation:
    """Text that a model generated for one prompt, not scored yet.

    Attributes:
        text: complete.
        finished: False when the length limit cut it off, None when unknown.
        tokens: its length, None when unknown.
    """

    text: str
    finished: bool | None = None
    tokens: int | None = None


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, independent of the order of its keys."""
    written = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()


def default_folder() -> Path:
    """Return the folder of the caches when none is given."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mm-cpgd" / "answers"


class GenerationCache:
    """Generations in one file that several threads may use and several processes may append to concurrently.

    Only the position of each generation in the file is held in memory.

    Args:
        path: the cache file; created if it does not exist.

    Attributes:
        damaged: number of lines that were skipped.
        failure: why generations can no longer be stored (a full disk, for instance), None while they can.

    Raises:
        DataError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.failure: str | None = None
        self._places: dict[str, tuple[int, int]] = {}
        # The threads of this process share one file position.
        self._lock = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(
                path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644
            )
        except OSError as error:
            raise DataError(
                f"the cache {path} cannot be written: {error.strerror}; give another --cache, or --no-cache"
            ) from error
        self._index()

    def __enter__(self) -> GenerationCache:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Generation | None:
        """Return the generation that was stored last under this key, None if there is no undamaged one."""
        with self._lock:
            if key not in self._places:
                return None
            line = _bytes_at(self._file, *self._places[key])
        found = _read(line)
        return found[1] if found and found[0] == key else None

    def put(self, key: str, generation: Generation) -> None:
        """Store a generation; if that fails, ``failure`` says why, and the generation is just not cached."""
        line = _line(key, generation)
        try:
            with self._lock, _locked(self._file):
                # The first newline ends a line that an interrupted process left incomplete.
                _write(self._file, b"\n" + line + b"\n")
                self._places[key] = os.lseek(self._file, 0, os.SEEK_CUR) - len(line) - 1, len(line)
        except OSError as error:
            self.failure = f"{self.path}: {error.strerror}"

    def _index(self) -> None:
        start = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    found = _read(line)
                    if found is None:
                        self.damaged += 1
                    else:
                        self._places[found[0]] = start, len(line)
                start += len(line)


def _line(key: str, generation: Generation) -> bytes:
    values = {
        "key": key,
        "text": generation.text,
        "finished": generation.finished,
        "tokens": generation.tokens,
    }
    return json.dumps({**values, "check": digest(values)}).encode()


def _read(line: bytes) -> tuple[str, Generation] | None:
    """Return key and generation of a line, None if it is not as it was written."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.pop("check", None) != digest(values):
        return None
    key, text, finished, tokens = (values.get(name) for name in ("key", "text", "finished", "tokens"))
    if not isinstance(key, str) or not isinstance(text, str):
        return None
    if not (finished is None or isinstance(finished, bool)) or not (tokens is None or type(tokens) is int):
        return None
    return key, Generation(text, finished, tokens)


def _bytes_at(file: int, start: int, length: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, length)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


@contextlib.contextmanager
def _locked(file: int) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def open_cache(folder: Path | None, identity: Mapping[str, Any]) -> GenerationCache:
    """Open the cache of one model.

    Args:
        folder: folder of all caches; None for the default.
        identity: the model's identity, with its ``model`` name; see ``Generator.identity``.

    Raises:
        DataError: as ``GenerationCache``.
    """
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in str(identity["model"]))[-80:].strip(".-")
    return GenerationCache(
        (folder or default_folder()) / f"{name or 'model'}-{digest(identity['model_id'])[:12]}.jsonl"
    )


# Files that determine a model's output; optimizer states and read-me files do not.
_KINDS = {".json", ".jinja", ".safetensors", ".bin", ".pt", ".model", ".txt", ".py"}
# Larger files are weights, identified by size, time and first bytes: hashing 15 GB takes a minute.
_WHOLE = 64 << 20
_HEAD = 1 << 20
HUB_SECONDS = 5


def folder_fingerprint(folder: Path) -> str:
    """Return a hash of a model folder; it changes if files are rewritten, or large weights are copied."""
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
    """Return the current commit of a hub name, from the hub or the local cache; None if unknown to both."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        return HfApi().model_info(model, revision=revision, timeout=HUB_SECONDS).sha
    except (
        Exception
    ):  # no network, offline mode, an unknown name: the client's libraries have no common error
        pass
    try:
        path = try_to_load_from_cache(model, "config.json", revision=revision)
    except ValueError:  # not a valid hub name
        return None
    return Path(path).parent.name if isinstance(path, str) else None
