"""Serialization of states: values of optimizers, schedulers and generators load unchanged, without pickle."""

from __future__ import annotations

import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mm_cpgd.checkpoint.serialization import (
    CheckpointError,
    load_state,
    random_states,
    save_state,
    set_random_states,
)


def identical(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())
    if isinstance(left, (np.ndarray, np.generic)):
        return type(left) is type(right) and left.dtype == right.dtype and bool(np.array_equal(left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(identical(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        pairs = zip(left, right, strict=True)
        return type(left) is type(right) and all(identical(*pair) for pair in pairs)
    return type(left) is type(right) and repr(left) == repr(right)


def round_trip(tmp_path: Path, state: Any) -> Any:
    save_state(tmp_path / "state.safetensors", state)
    return load_state(tmp_path / "state.safetensors")


@pytest.mark.parametrize(
    "state",
    [
        {0: 1, "0": 2, (1, "a"): 3, None: 4, True: 5, 0.5: 6},
        [0.1, 1e-300, -0.0, float("inf"), float("-inf"), float("nan"), 2**200, True, None, "思\udc80"],
        ((), [], {}, ((1,), [2, (3,)])),
        {"tensor": {"tensor": "0"}, "dict": [["a", 1]], "float": "nan"},
        b"\x00\xff",
        7,
        torch.tensor([1.0, float("inf")], dtype=torch.bfloat16),
        [torch.tensor(3), torch.zeros(0, 2), torch.tensor([True]), torch.arange(6).reshape(2, 3).T],
        [
            np.arange(4, dtype=np.uint32),
            np.float64(0.1),
            np.zeros((2, 0)),
            np.array(["a", "bc"]),
            np.int8(-3),
        ],
    ],
)
def test_a_state_loads_unchanged(tmp_path: Path, state: Any) -> None:
    assert identical(round_trip(tmp_path, state), state)


def test_tensors_of_one_storage_load_as_separate_tensors(tmp_path: Path) -> None:
    base = torch.arange(4.0)
    first, again, part = round_trip(tmp_path, [base, base, base[1:3]])
    first.zero_()
    assert torch.equal(again, base)
    assert torch.equal(part, base[1:3])


def test_a_mapping_of_another_class_loads_as_a_dict_in_its_order(tmp_path: Path) -> None:
    assert list(round_trip(tmp_path, OrderedDict(b=1, a=2))) == ["b", "a"]


def test_a_value_that_would_not_load_is_rejected_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['seen'\]\[1\]: a set cannot be stored"):
        save_state(tmp_path / "state.safetensors", {"seen": [0, {1}]})


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100])
def test_a_file_that_is_no_state_is_one_message(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a readable state file"):
        load_state(file)


def test_a_tensor_file_without_a_state_is_one_message(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is not a readable state file"):
        load_state(tmp_path / "a.safetensors")


def test_random_generators_continue_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    draw()
    states = round_trip(tmp_path, random_states())
    expected = draw()
    draw()
    set_random_states(states)
    assert draw() == expected


class Run:
    """A small training run with dropout, AdamW and a warm-up: everything that a checkpoint must restore."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, amsgrad=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / 7)
        )

    def steps(self, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            loss = self.model(torch.randn(3, 4)).square().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            losses.append(loss.item())
        return losses

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random_states(),
        }


def test_training_continues_bit_identically_from_a_stored_state(tmp_path: Path) -> None:
    run = Run()
    run.steps(3)
    save_state(tmp_path / "state.safetensors", run.state())
    expected = run.steps(5)

    resumed = Run()
    state = load_state(tmp_path / "state.safetensors")
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.schedule.load_state_dict(state["schedule"])
    set_random_states(state["random"])
    assert resumed.steps(5) == expected
    assert identical(resumed.state(), run.state())


def test_the_state_of_a_real_optimizer_loads_unchanged(tmp_path: Path) -> None:
    run = Run()
    run.steps(2)
    state = run.state()
    state["model"] = dict(state["model"])
    assert identical(round_trip(tmp_path, state), state)
