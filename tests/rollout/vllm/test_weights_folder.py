"""Weights in a folder: files of bounded size, complete or absent, under all names of a weight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.policy import load_policy
from mm_cpgd.rollout.vllm.weights_folder import INDEX, WeightsFolder, in_buckets, tied_names


def weights(count: int) -> Iterator[tuple[str, Tensor]]:
    """Yield weights of 400 bytes."""
    return ((f"w{i}", torch.full((100,), float(i))) for i in range(count))


def read(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def test_buckets_are_as_large_as_allowed_unless_one_weight_is_larger() -> None:
    assert [len(bucket) for bucket in in_buckets(weights(7), 1200)] == [3, 3, 1]
    assert [len(bucket) for bucket in in_buckets(weights(2), 1)] == [1, 1]
    assert list(in_buckets(iter(()), 1)) == []


def test_files_hold_all_weights_and_an_index_of_them(tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path, file_bytes=1000)
    folder.store(weights(5))
    found = read(folder.newest)
    assert {name: float(value[0]) for name, value in found.items()} == {f"w{i}": float(i) for i in range(5)}
    index = json.loads((folder.newest / INDEX).read_text())
    assert index["metadata"]["total_size"] == 2000
    assert index["weight_map"].keys() == found.keys()
    for name, file in index["weight_map"].items():
        assert name in load_file(folder.newest / file)


def test_a_file_is_written_before_the_weights_of_the_next_are_asked_for(tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path, file_bytes=1000)
    seen = []

    def watched() -> Iterator[tuple[str, Tensor]]:
        for pair in weights(7):
            seen.append(len(list(tmp_path.rglob("*.safetensors"))))
            yield pair

    folder.store(watched())
    # The weight that does not fit any more is held while the file is written.
    assert seen == [0, 0, 0, 1, 1, 2, 2]


def test_weights_that_cannot_be_written_leave_nothing_and_the_earlier_ones_stay(tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path)
    folder.store(weights(2))
    before = folder.newest

    def full() -> Iterator[tuple[str, Tensor]]:
        yield from weights(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        folder.store(full())
    assert list(tmp_path.iterdir()) == [before]


def test_cleaning_leaves_the_newest_alone(tmp_path: Path) -> None:
    killed = tmp_path / ".weights-0123abcd-1"
    killed.mkdir(parents=True)
    folder = WeightsFolder(tmp_path)
    for _ in range(2):
        folder.store(weights(1))
    folder.clean()
    assert list(tmp_path.iterdir()) == [folder.newest]
    folder.remove()
    assert not tmp_path.exists()


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    folder = WeightsFolder(tmp_path)
    folder.store(weights(1))
    folder.remove()
    assert [one.name for one in tmp_path.iterdir()] == ["notes"]


def test_folders_of_the_user_stay_also_with_a_similar_name(tmp_path: Path) -> None:
    mine = ["best-weights-of-may", "weights-backup-1", "weights-old"]
    for name in mine:
        (tmp_path / name).mkdir()
    folder = WeightsFolder(tmp_path)
    folder.store(weights(1))
    folder.clean()
    folder.remove()
    assert sorted(one.name for one in tmp_path.iterdir()) == mine


def test_versions_differ_between_updates_and_between_runs(tmp_path: Path) -> None:
    names = set()
    for folder in (WeightsFolder(tmp_path), WeightsFolder(tmp_path)):
        for _ in range(2):
            folder.store(weights(1))
            names.add(folder.version)
    assert len(names) == 4


def test_wider_weights_are_written_in_the_format_of_the_servers(tmp_path: Path) -> None:
    folder = WeightsFolder(tmp_path, dtype=torch.bfloat16)
    mixed = [("wide", torch.tensor([1 / 3])), ("half", torch.tensor([0.5], dtype=torch.float16))]
    folder.store(mixed)
    found = read(folder.newest)
    assert torch.equal(found["wide"], torch.tensor([1 / 3]).bfloat16())
    assert found["half"].dtype is torch.float16
    wide = WeightsFolder(tmp_path, dtype=torch.float32)
    wide.store([("half", torch.tensor([0.5]).bfloat16())])
    assert read(wide.newest)["half"].dtype is torch.bfloat16


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_a_tied_head_is_written_under_its_own_name_too(
    tiny_folder: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    model = load_policy(PolicyConfig(model=str(tiny_folder), lora=lora)).model
    tied = tied_names(model)
    assert tied == {"model.language_model.embed_tokens.weight": ["lm_head.weight"]}
    folder = WeightsFolder(tmp_path / "weights", tied)
    embedding = model.get_input_embeddings().weight.detach()
    folder.store([("model.language_model.embed_tokens.weight", embedding)])
    assert all(torch.equal(value, embedding) for value in read(folder.newest).values())
    assert read(folder.newest).keys() == {"model.language_model.embed_tokens.weight", "lm_head.weight"}


def test_weights_that_are_not_tied_have_one_name() -> None:
    assert tied_names(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))) == {}
