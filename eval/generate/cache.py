"""Cache of generated answers, keyed by everything that decides them: only what changed is generated again.

One JSON object a line, appended as answers come. A line that was half written, damaged or tampered with fails
its checksum and is passed over; its answer is generated again. Plain Python, no torch.
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
except ImportError:  # Windows, where one whole line a write has to do
    fcntl = None  # type: ignore[assignment]

# Part of every key: raised when the meaning of a stored answer changes.
VERSION = 1


@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Attributes:
        text: whole.
        finished: False when the length limit cut it off, None when nobody noted it.
        tokens: its length, None when nobody noted it.
    """

    text: str
    finished: bool | None = None
    tokens: int | None = None


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    written = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()


def default_folder() -> Path:
    """Return where answers are kept when nobody says where."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mm-cpgd" / "answers"


class AnswerCache:
    """Answers in one file, which several threads may use and several processes append to at once.

    Of each answer only its place in the file stays in memory.

    Args:
        path: of the file; made if it is not there.

    Attributes:
        damaged: lines that were passed over.
        failure: why answers can no longer be stored (a full disk, for instance), None while they can.

    Raises:
        DataError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.failure: str | None = None
        self._places: dict[str, tuple[int, int]] = {}
        # The threads of this process share one place in the file.
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

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Answer | None:
        """Return the answer that was stored last under this key, None if there is none that is sound."""
        with self._lock:
            if key not in self._places:
                return None
            line = _bytes_at(self._file, *self._places[key])
        found = _read(line)
        return found[1] if found and found[0] == key else None

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer; where that fails, ``failure`` says why, and the answer is merely not kept."""
        line = _line(key, answer)
        try:
            with self._lock, _locked(self._file):
                # A line that an interrupted process left half written ends here, and spoils none but itself.
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


def _line(key: str, answer: Answer) -> bytes:
    values = {"key": key, "text": answer.text, "finished": answer.finished, "tokens": answer.tokens}
    return json.dumps({**values, "check": digest(values)}).encode()


def _read(line: bytes) -> tuple[str, Answer] | None:
    """Return key and answer of a line, None where it is not what was once written."""
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
    return key, Answer(text, finished, tokens)


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


def cache_of(folder: Path | None, identity: Mapping[str, Any]) -> AnswerCache:
    """Return the cache of one model.

    Args:
        folder: of all caches; None for the default.
        identity: of the model, with its ``model`` name; see ``Generator.identity``.

    Raises:
        DataError: as ``AnswerCache``.
    """
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in str(identity["model"]))[-80:].strip(".-")
    return AnswerCache(
        (folder or default_folder()) / f"{name or 'model'}-{digest(identity['model_id'])[:12]}.jsonl"
    )


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
