"""Checkpoint folders that are complete or absent: ``checkpoints/step-N/``.

A checkpoint is written into a hidden folder beside its place, brought to the disk (fsync), sealed with a
manifest of every file's size and SHA-256, and renamed. Whatever kills the process before the rename leaves
the earlier checkpoints as they were; whatever damages a file afterwards is found by its manifest.

Only one process of a run may save. What goes into a file is up to the caller; ``state.save_state`` keeps
optimizer, scheduler and random states without pickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mm_cpgd.checkpoint.serialization import (
    CheckpointError,
    load_state,
    random_states,
    save_state,
    set_random_states,
)

__all__ = [
    "CheckpointError",
    "damage",
    "load_state",
    "newest_checkpoint",
    "random_states",
    "save_checkpoint",
    "save_state",
    "set_random_states",
    "step_of",
]

MANIFEST = "manifest.json"
FORMAT = 1
_STEP = re.compile(r"step-(\d+)(\.replaced)?")
_TEMPORARY = re.compile(r"\.step-\d+(\.replaced)?\.(?P<host>.+)\.(?P<pid>\d+)\.tmp")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save_checkpoint(
    folder: Path, step: int, write: Callable[[Path], None], keep: int, protect: Collection[int] = ()
) -> Path:
    """Write ``folder/step-N`` and remove what is too old.

    Args:
        folder: the run's ``checkpoints`` folder; made if absent.
        step: N. A checkpoint of the same step is replaced.
        write: writes the files into the folder it is given.
        keep: how many checkpoints stay, this one included.
        protect: steps that stay beside them (the best).

    Raises:
        CheckpointError: the disk is full or refuses; nothing of the new checkpoint remains, and the earlier
            ones are untouched. Any other exception of ``write`` passes through, with the same promise.
    """
    place = folder / f"step-{step}"
    with _disk_errors(f"checkpoint {place} was not saved, earlier ones are untouched"):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary = _hidden(place)
        temporary.mkdir()
        try:
            write(temporary)
            _seal(temporary, step)
            _move_into_place(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    with _disk_errors(f"checkpoint {place} was saved, but old ones were not removed"):
        _prune(folder, step, keep, protect)
    return place


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the checkpoint of the highest step that is whole, None if there is none.

    Reads every file of it. ``warn`` is told of each damaged one on the way, and what is wrong with it.
    """
    for place in _checkpoints(folder):
        problem = damage(place)
        if problem is None:
            return place
        warn(f"checkpoint {place} is damaged and skipped: {problem}")
    return None


def damage(place: Path, quick: bool = False) -> str | None:
    """Return what is wrong with a checkpoint folder, None if it is whole. ``quick`` compares sizes alone."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"its format is {manifest['format']!r}, this version reads {FORMAT}"
        if manifest["step"] != step_of(place):
            return f"its {MANIFEST} is of step {manifest['step']!r}"
        problems = (
            _file_damage(place, name, size, digest, quick)
            for name, (size, digest) in manifest["files"].items()
        )
        return next((problem for problem in problems if problem), None)
    except FileNotFoundError:
        return f"its {MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"


def step_of(place: Path) -> int:
    """Return N of ``step-N``."""
    match = _STEP.fullmatch(place.name)
    if match is None:
        raise CheckpointError(f"{place} is no checkpoint; it should be named step-N")
    return int(match[1])


def _file_damage(place: Path, name: str, size: int, digest: str, quick: bool) -> str | None:
    file = place / name
    if not file.is_file():
        return f"{name} is missing"
    if file.stat().st_size != size:
        return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
    if not quick and _digest(file) != digest:
        return f"{name} is not what was written (its SHA-256 differs)"
    return None


def _seal(folder: Path, step: int) -> None:
    """Bring all files to the disk, then the manifest that vouches for them."""
    files = {}
    for file in sorted(part for part in folder.rglob("*") if part.is_file()):
        _sync(file)
        files[file.relative_to(folder).as_posix()] = [file.stat().st_size, _digest(file)]
    manifest = folder / MANIFEST
    manifest.write_text(
        json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1), encoding="utf-8"
    )
    _sync(manifest)
    for part in (*(part for part in folder.rglob("*") if part.is_dir()), folder):
        _sync(part)


def _move_into_place(temporary: Path, place: Path) -> None:
    # A folder cannot be renamed over another: the old one steps aside, loadable until the new one is there.
    aside = place.with_name(f"{place.name}.replaced")
    if place.exists():
        _remove(aside)
        place.rename(aside)
    temporary.rename(place)
    _sync(place.parent)
    _remove(aside)


def _prune(folder: Path, step: int, keep: int, protect: Collection[int]) -> None:
    """Remove all but the newest ``keep`` up to ``step``, the protected, and whole ones of later steps.

    Damaged ones do not count, so that a bad disk does not push out the last good one.
    """
    whole = [place for place in _checkpoints(folder) if damage(place, quick=True) is None]
    past = [place for place in whole if step_of(place) <= step]
    kept = {*past[:keep], *(place for place in whole if step_of(place) > step)}
    for place in _checkpoints(folder):
        if place not in kept and step_of(place) not in protect:
            _remove(place)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, newest first; a replaced one comes after its successor."""
    places = [place for place in folder.glob("step-*") if _STEP.fullmatch(place.name) and place.is_dir()]
    return sorted(places, key=lambda place: (-step_of(place), place.suffix))


def _hidden(place: Path) -> Path:
    return place.with_name(f".{place.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _remove_leftovers(folder: Path) -> None:
    """Remove the hidden folders of dead writers; another machine's cannot be judged and stay."""
    for place in folder.glob(".step-*.tmp"):
        match = _TEMPORARY.fullmatch(place.name)
        if match and match["host"] == socket.gethostname() and not _another_lives(int(match["pid"])):
            shutil.rmtree(place, ignore_errors=True)


def _another_lives(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(place: Path) -> None:
    """Remove a checkpoint folder so that it is never seen half removed."""
    if place.exists():
        hidden = _hidden(place)
        shutil.rmtree(hidden, ignore_errors=True)
        place.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(what_happened: str) -> Iterator[None]:
    """Turn what the disk refuses into one message; safetensors wraps the error's number in its text."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if number is None and found else number
        if number is None:
            raise
        cause = "the disk is full" if number in _NO_SPACE else "writing failed"
        raise CheckpointError(
            f"{what_happened}: {cause} ({os.strerror(number)}). Free space or mend the cause, then resume"
        ) from error
