"""Checkpoint folders that are complete or absent: ``checkpoints/step-N/``.

A checkpoint is written into a hidden folder beside its destination, flushed to disk (fsync), completed by a
manifest with every file's size and SHA-256, and renamed. If the process is killed before the rename, earlier
checkpoints are unchanged; later damage to a file is detected by the manifest.

Only one process of a run may save; the others may write files into the hidden folder meanwhile. The caller
decides what the files contain; ``serialization.save_state`` stores optimizer, scheduler and random states
without pickle.
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
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mm_cpgd.checkpoint.serialization import CheckpointError

MANIFEST = "manifest.json"
FORMAT = 1
_STEP = re.compile(r"step-(\d+)(\.replaced)?")
_TEMPORARY = re.compile(r"\.step-\d+(\.replaced)?\.(?P<host>.+)\.(?P<pid>\d+)\.tmp")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save_checkpoint(
    folder: Path, step: int, write: Callable[[Path], None], keep: int, protect: Collection[int] = ()
) -> Path:
    """Write ``folder/step-N`` and remove old checkpoints.

    Args:
        folder: the run's ``checkpoints`` folder; created if absent.
        step: N. A checkpoint of the same step is replaced.
        write: writes the files into the folder passed to it.
        keep: number of checkpoints to keep, this one included.
        protect: steps to keep in addition (the best).

    Raises:
        CheckpointError: the disk is full or writing fails; nothing of the new checkpoint remains, and earlier
            ones are unchanged. Any other exception of ``write`` propagates, with the same guarantee.
    """
    return finish_checkpoint(begin_checkpoint(folder, step), step, write, keep, protect)


def begin_checkpoint(folder: Path, step: int) -> Path:
    """Return a new hidden folder for the files of ``folder/step-N``.

    Raises:
        CheckpointError: as ``save_checkpoint``.
    """
    target = folder / f"step-{step}"
    with not_saved(target):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary = _temporary_path(target)
        temporary.mkdir()
    return temporary


def finish_checkpoint(
    temporary: Path, step: int, write: Callable[[Path], None], keep: int, protect: Collection[int] = ()
) -> Path:
    """Complete the checkpoint in ``temporary``, and move it into place; otherwise as ``save_checkpoint``."""
    folder = temporary.parent
    target = folder / f"step-{step}"
    with not_saved(target):
        try:
            write(temporary)
            _write_manifest(temporary, step)
            _move_into_place(temporary, target)
        finally:
            abandon_checkpoint(temporary)
    with _disk_errors(f"checkpoint {target} was saved, but old ones were not removed"):
        _prune(folder, step, keep, protect)
    return target


def abandon_checkpoint(temporary: Path) -> None:
    """Remove what ``begin_checkpoint`` has begun."""
    shutil.rmtree(temporary, ignore_errors=True)


def not_saved(target: Path) -> AbstractContextManager[None]:
    """Turn disk errors into a ``CheckpointError`` that says that ``target`` was not saved."""
    return _disk_errors(f"checkpoint {target} was not saved, earlier ones are unchanged")


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the complete checkpoint of the highest step, None if there is none.

    Reads all its files. ``warn`` is called with the problem of each damaged checkpoint that is skipped.
    """
    for path in _checkpoints(folder):
        problem = find_damage(path)
        if problem is None:
            return path
        warn(f"checkpoint {path} is damaged and skipped: {problem}")
    return None


def find_damage(path: Path, quick: bool = False) -> str | None:
    """Return what is wrong with a checkpoint folder, None if it is complete; ``quick`` only checks sizes."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"its format is {manifest['format']!r}, this version reads {FORMAT}"
        if manifest["step"] != step_of(path):
            return f"its {MANIFEST} is of step {manifest['step']!r}"
        problems = (
            _file_damage(path, name, size, digest, quick)
            for name, (size, digest) in manifest["files"].items()
        )
        return next((problem for problem in problems if problem), None)
    except FileNotFoundError:
        return f"its {MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"


def step_of(path: Path) -> int:
    """Return N of ``step-N``."""
    match = _STEP.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not a checkpoint; its name should be step-N")
    return int(match[1])


def _file_damage(path: Path, name: str, size: int, digest: str, quick: bool) -> str | None:
    file = path / name
    if not file.is_file():
        return f"{name} is missing"
    if file.stat().st_size != size:
        return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
    if not quick and _digest(file) != digest:
        return f"{name} is not what was written (its SHA-256 differs)"
    return None


def _write_manifest(folder: Path, step: int) -> None:
    """Flush all files to disk, then write and flush the manifest that lists them."""
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        _sync(file)
        files[file.relative_to(folder).as_posix()] = [file.stat().st_size, _digest(file)]
    manifest = folder / MANIFEST
    manifest.write_text(
        json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1), encoding="utf-8"
    )
    _sync(manifest)
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(path)


def _move_into_place(temporary: Path, target: Path) -> None:
    # A folder cannot be renamed over another: the old one is renamed first, loadable until it is replaced.
    replaced = target.with_name(f"{target.name}.replaced")
    if target.exists():
        _remove(replaced)
        target.rename(replaced)
    temporary.rename(target)
    _sync(target.parent)
    _remove(replaced)


def _prune(folder: Path, step: int, keep: int, protect: Collection[int]) -> None:
    """Remove all but the newest ``keep`` up to ``step``, the protected, and complete ones of later steps.

    Damaged ones do not count towards ``keep``, so that they cannot displace the last intact one.
    """
    complete = [path for path in _checkpoints(folder) if find_damage(path, quick=True) is None]
    past = [path for path in complete if step_of(path) <= step]
    kept = {*past[:keep], *(path for path in complete if step_of(path) > step)}
    for path in _checkpoints(folder):
        if path not in kept and step_of(path) not in protect:
            _remove(path)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, newest first; a replaced one comes after its successor."""
    paths = [path for path in folder.glob("step-*") if _STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(paths, key=lambda path: (-step_of(path), path.suffix))


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary folders of dead processes; those of other hosts stay, as their state is unknown."""
    for path in folder.glob(".step-*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and match["host"] == socket.gethostname() and not _other_process_alive(int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)


def _other_process_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a checkpoint folder; it is renamed first, so that no incomplete one is visible."""
    if path.exists():
        temporary = _temporary_path(path)
        shutil.rmtree(temporary, ignore_errors=True)
        path.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


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
    """Turn disk errors into one ``CheckpointError``; safetensors gives the error number only in its text."""
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
            f"{what_happened}: {cause} ({os.strerror(number)}). Free space or fix the cause, then resume"
        ) from error
