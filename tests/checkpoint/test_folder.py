"""Checkpoint folders: complete or absent after kills, disk errors and damage to their files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_cpgd.checkpoint import folder as checkpoint
from mm_cpgd.checkpoint.folder import find_damage, newest_checkpoint, save_checkpoint
from mm_cpgd.checkpoint.serialization import CheckpointError


def files(content: bytes = b"weights") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_bytes(content)
        (folder / "trainer.json").write_bytes(b"{}")

    return write


def no_warning(text: str) -> None:
    raise AssertionError(text)


def steps(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir())


def test_a_saved_checkpoint_is_complete_and_the_newest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 9, files(), keep=3)
    place = save_checkpoint(tmp_path, 10, files(), keep=3)
    assert place == tmp_path / "step-10"
    assert (place / "model" / "model.safetensors").read_bytes() == b"weights"
    assert newest_checkpoint(tmp_path, no_warning) == place


def test_no_folder_and_an_empty_folder_have_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, no_warning) is None
    assert newest_checkpoint(tmp_path / "absent", no_warning) is None


def test_the_newest_is_by_number_not_by_spelling(tmp_path: Path) -> None:
    for step in (100, 20):
        save_checkpoint(tmp_path, step, files(), keep=9)
    assert newest_checkpoint(tmp_path, no_warning) == tmp_path / "step-100"


def test_old_checkpoints_are_removed_and_protected_ones_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, files(), keep=2, protect=(1,))
    assert steps(tmp_path) == ["step-1", "step-4", "step-5"]


def test_damaged_checkpoints_do_not_displace_the_last_intact_one(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, files(), keep=2)
    (tmp_path / "step-2" / "manifest.json").unlink()
    save_checkpoint(tmp_path, 3, files(), keep=2)
    assert steps(tmp_path) == ["step-1", "step-3"]


def test_a_checkpoint_older_than_others_survives_its_own_saving(tmp_path: Path) -> None:
    for step in (7, 8, 3):
        save_checkpoint(tmp_path, step, files(), keep=2)
    assert steps(tmp_path) == ["step-3", "step-7", "step-8"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, files(b"old"), keep=2)
    place = save_checkpoint(tmp_path, 1, files(b"new"), keep=2)
    assert (place / "model" / "model.safetensors").read_bytes() == b"new"
    assert steps(tmp_path) == ["step-1"]


def test_a_replaced_checkpoint_is_found_until_its_successor_exists(tmp_path: Path) -> None:
    place = save_checkpoint(tmp_path, 1, files(), keep=2)
    place.rename(tmp_path / "step-1.replaced")
    assert newest_checkpoint(tmp_path, no_warning) == tmp_path / "step-1.replaced"


def truncate(place: Path) -> None:
    (place / "model" / "model.safetensors").write_bytes(b"weigh")


def flip(place: Path) -> None:
    (place / "model" / "model.safetensors").write_bytes(b"weighte")


def lose_manifest(place: Path) -> None:
    (place / "manifest.json").unlink()


def break_manifest(place: Path) -> None:
    (place / "manifest.json").write_bytes(b'{"format": 1, "st')


def list_manifest(place: Path) -> None:
    (place / "manifest.json").write_bytes(b"[1, 2]")


def lose_file(place: Path) -> None:
    (place / "trainer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "model.safetensors has 5 bytes instead of 7"),
        (flip, "model.safetensors is not what was written"),
        (lose_manifest, "manifest.json is missing"),
        (break_manifest, "manifest.json cannot be read"),
        (list_manifest, "manifest.json cannot be read"),
        (lose_file, "trainer.json is missing"),
    ],
)
def test_a_damaged_newest_checkpoint_is_skipped_and_named(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, files(), keep=2)
    damage(tmp_path / "step-2")
    warnings: list[str] = []
    assert newest_checkpoint(tmp_path, warnings.append) == tmp_path / "step-1"
    assert len(warnings) == 1
    assert "step-2 is damaged" in warnings[0]
    assert reason in warnings[0]


def test_a_checkpoint_under_another_step_is_damaged(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, files(), keep=1).rename(tmp_path / "step-5")
    assert find_damage(tmp_path / "step-5") == "its manifest.json is of step 1"


def test_a_full_disk_is_one_message_and_leaves_only_the_previous_checkpoint(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        files()(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    save_checkpoint(tmp_path, 1, files(), keep=1)
    with pytest.raises(CheckpointError, match=r"step-2 was not saved.*the disk is full"):
        save_checkpoint(tmp_path, 2, write, keep=1)
    assert steps(tmp_path) == ["step-1"]
    assert find_damage(tmp_path / "step-1") is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_for_plain_files_is_reported(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        with Path("/dev/full").open("wb") as file:
            file.write(b"1")

    with pytest.raises(CheckpointError, match="the disk is full"):
        save_checkpoint(tmp_path, 1, write, keep=1)


LIMITED = """\
import resource, signal, sys
from pathlib import Path
import torch
from mm_cpgd.checkpoint.folder import save_checkpoint
from mm_cpgd.checkpoint.serialization import CheckpointError, save_state

save_checkpoint(Path(sys.argv[1]), 1, lambda folder: save_state(folder / "a.safetensors", {}), keep=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    large = {"weights": torch.zeros(100_000)}
    save_checkpoint(Path(sys.argv[1]), 2, lambda folder: save_state(folder / "a.safetensors", large), keep=1)
except CheckpointError as error:
    print(error)
"""


def test_a_full_disk_reported_by_safetensors_is_the_same_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "step-2 was not saved" in done.stdout
    assert "the disk is full (File too large)" in done.stdout
    assert steps(tmp_path) == ["step-1"]


def test_any_other_error_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        files()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 1, write, keep=1)
    assert steps(tmp_path) == []


def die(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half(folder: Path) -> None:
    files(b"half")(folder)
    die()


@pytest.mark.parametrize("stage", ["write", "_write_manifest", "_digest", "_move_into_place", "_prune"])
def test_a_kill_at_any_stage_of_saving_leaves_a_complete_checkpoint(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, files(), keep=1)
    child = os.fork()
    if child == 0:
        if stage != "write":
            monkeypatch.setattr(checkpoint, stage, die)
        save_checkpoint(tmp_path, 2, write_half if stage == "write" else files(), keep=1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    expected = tmp_path / ("step-2" if stage == "_prune" else "step-1")
    assert newest_checkpoint(tmp_path, no_warning) == expected
    save_checkpoint(tmp_path, 3, files(), keep=1)
    assert steps(tmp_path) == ["step-3"]


def test_the_temporary_folder_of_a_running_process_stays(tmp_path: Path) -> None:
    host = os.uname().nodename
    alive = tmp_path / f".step-4.{host}.{os.getppid()}.tmp"
    elsewhere = tmp_path / ".step-4.another-host.7.tmp"
    own_leftover = tmp_path / f".step-4.{host}.{os.getpid()}.tmp"
    for place in (alive, elsewhere, own_leftover):
        place.mkdir()
    save_checkpoint(tmp_path, 5, files(), keep=1)
    assert sorted(steps(tmp_path)) == sorted([alive.name, elsewhere.name, "step-5"])
