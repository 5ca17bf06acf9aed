"""Cache of generations: round trips, damaged files, concurrent writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data import DataError
from eval.generate.cache import Generation, GenerationCache, open_cache
from tests.paths import ROOT

ANSWERS = {
    "a": Generation("x = 1", True, 5),
    "b": Generation("Zeile\n\u2028两 \ud800 \x00", False, 9),
    "c": Generation("", None, None),
}


def filled(path: Path) -> bytes:
    with GenerationCache(path) as cache:
        for key, answer in ANSWERS.items():
            cache.put(key, answer)
    return path.read_bytes()


def found(path: Path) -> dict[str, Generation | None]:
    with GenerationCache(path) as cache:
        return {key: cache.get(key) for key in ANSWERS}


def test_a_stored_generation_is_found_by_the_same_and_by_a_later_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    with GenerationCache(path) as cache:
        assert cache.get("a") is None
        for key, answer in ANSWERS.items():
            cache.put(key, answer)
        assert {key: cache.get(key) for key in ANSWERS} == ANSWERS
    assert found(path) == ANSWERS


def test_the_generation_that_was_stored_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    filled(path)
    with GenerationCache(path) as cache:
        cache.put("a", Generation("new"))
    assert found(path)["a"] == Generation("new")


def test_a_file_cut_anywhere_loses_only_the_generations_after_the_cut(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole.jsonl")
    ends = [end for end in range(len(whole)) if whole[:end].count(b"}") and whole[end - 1 : end] == b"}"]
    for cut in range(len(whole)):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:cut])
        sound = sum(end <= cut for end in ends)
        assert sum(answer is not None for answer in found(path).values()) == sound
        with GenerationCache(path) as cache:
            cache.put("c", ANSWERS["c"])
        assert found(path)["c"] == ANSWERS["c"], "a line behind a half-written one is whole"


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values | {"text": "x = 2"},
        lambda values: values | {"key": "b"},
        lambda values: values | {"tokens": True},
        lambda values: values | {"extra": 1},
        lambda values: {name: value for name, value in values.items() if name != "check"},
        lambda values: [values],
        lambda values: "x = 1",
        lambda values: None,
    ],
)
def test_a_line_that_was_changed_is_skipped(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [json.loads(line) for line in filled(path).splitlines() if line]
    lines[0] = damage(lines[0])  # type: ignore[operator]
    path.write_text("\n".join(map(json.dumps, lines)))
    with GenerationCache(path) as cache:
        assert cache.damaged == 1
        assert len(cache) == 2
    assert found(path) == ANSWERS | {"a": None}


@pytest.mark.parametrize("wrong", [{"text": 1}, {"finished": 1}, {"tokens": 1.5}, {"key": None}])
def test_a_line_of_wrong_types_is_skipped_regardless_of_its_checksum(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    from eval.generate.cache import digest

    path = tmp_path / "answers.jsonl"
    values = {"key": "a", "text": "t", "finished": True, "tokens": 1, **wrong}
    path.write_text(json.dumps({**values, "check": digest(values)}) + "\n")
    with GenerationCache(path) as cache:
        assert (len(cache), cache.damaged) == (0, 1)


def test_bytes_that_are_no_text_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    sound = filled(path)
    path.write_bytes(b"\xff\xfe\x00\n[[[[" + b"[" * 100_000 + b"\n{}\n12\n" + sound)
    assert found(path) == ANSWERS


def test_a_file_that_is_damaged_while_it_is_open_yields_no_wrong_generation(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    filled(path)
    with GenerationCache(path) as cache:
        path.write_bytes(b" " * 400)
        assert [cache.get(key) for key in ANSWERS] == [None] * 3


WRITER = """
import sys
from eval.generate.cache import Generation, GenerationCache
from pathlib import Path
name = sys.argv[2]
with GenerationCache(Path(sys.argv[1])) as cache:
    for i in range(200):
        cache.put(f"{name}{i}", Generation(name * 5000, True, i))
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], cwd=ROOT) for name in ("x", "y")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    with GenerationCache(path) as cache:
        assert cache.damaged == 0
        for name in ("x", "y"):
            assert all(cache.get(f"{name}{i}") == Generation(name * 5000, True, i) for i in range(200))


def test_a_generation_that_cannot_be_stored_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with GenerationCache(tmp_path / "answers.jsonl") as cache:
        monkeypatch.setattr(os, "write", full)
        cache.put("a", ANSWERS["a"])
        assert cache.failure is not None
        assert "No space left" in cache.failure
        assert cache.get("a") is None


def test_a_folder_that_cannot_be_created_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--no-cache"):
        GenerationCache(tmp_path / "file" / "answers.jsonl")


def test_models_of_the_same_name_and_other_weights_have_each_their_file(tmp_path: Path) -> None:
    paths = []
    for weights in ("one", "two"):
        with open_cache(tmp_path, {"model": "../org/model:x", "model_id": weights}) as cache:
            paths.append(cache.path)
    assert paths[0] != paths[1]
    assert {path.parent for path in paths} == {tmp_path}
    assert paths[0].name.startswith("org-model-x-")
