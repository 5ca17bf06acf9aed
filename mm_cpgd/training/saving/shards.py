"""State of a run in shards: weights, moments and the guard's snapshots, under the names of a checkpoint.

Every process holds its part of each tensor. What is no such tensor (settings, counts of steps) is the same on
all processes, and stands beside the tensors in the checkpoint's ``run.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mm_cpgd.checkpoint.serialization import CheckpointError
from mm_cpgd.checkpoint.shards import read_shards, shapes_in
from mm_cpgd.policy.sharding.tensors import is_sharded, local_value, part_of, with_layout

Content = dict[str, Any]
FOLDER = "shards"
GUARD = "guard"


def has_shards(place: Path) -> bool:
    """Return whether the checkpoint in ``place`` was saved by a run with sharded weights."""
    return (place / FOLDER).is_dir()


def tensors_of(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return weights and moments by their names in a checkpoint."""
    found: dict[str, Tensor] = {f"weights.{name}": value.detach() for name, value in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                found[f"moments.{key}.{name}"] = value
    return found


def optimizer_settings(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Return the optimizer's state apart from ``tensors_of``."""
    counts = {
        name: {
            key: value
            for key, value in optimizer.state.get(parameter, {}).items()
            if not (isinstance(value, Tensor) and value.shape == parameter.shape)
        }
        for name, parameter in parameters.items()
    }
    groups = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    return {"counts": counts, "groups": groups}


@torch.no_grad()
def load_tensors(
    place: Path,
    saved: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore weights and optimizer from a checkpoint with shards.

    Args:
        place: the checkpoint.
        saved: as ``optimizer_settings`` returned it.
        parameters: the trained parameters, whole or sharded.
        optimizer: their optimizer.

    Raises:
        CheckpointError: the files cannot be read, or hold other tensors.
    """
    shapes = shapes_in(place / FOLDER)
    for name, parameter in parameters.items():
        kinds = [key for key in _moments(shapes) if f"moments.{key}.{name}" in shapes]
        fresh = {key: torch.zeros_like(parameter) for key in kinds}
        optimizer.state[parameter] = {**saved["counts"].get(name, {}), **fresh}
    for group, settings in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update(settings)
    _read(place, tensors_of(parameters, optimizer))


def weight_shapes(place: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights in a checkpoint with shards."""
    return {
        name.removeprefix("weights."): shape
        for name, shape in shapes_in(place / FOLDER).items()
        if name.startswith("weights.")
    }


def take_snapshots(
    guard: dict[str, Any] | None, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Divide the guard's state into what is the same on all processes, and its snapshots' tensors.

    Args:
        guard: ``RollbackController.state_dict()``, with this process's parts.
        parameters: the trained parameters.
    """
    if guard is None:
        return None, {}
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for role, snapshot in guard["snapshots"].items():
        if snapshot is None:
            plain[role] = None
            continue
        content = snapshot["content"]
        rest: Content = {key: value for key, value in content.items() if key not in ("weights", "moments")}
        rest["moments"] = {name: {} for name in content["moments"]}
        for name, value in content["weights"].items():
            tensors[f"{GUARD}.{role}.weights.{name}"] = with_layout(value, parameters[name])
        for name, values in content["moments"].items():
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape == local_value(parameters[name]).shape:
                    tensors[f"{GUARD}.{role}.moments.{key}.{name}"] = with_layout(value, parameters[name])
                else:
                    rest["moments"][name][key] = value
        plain[role] = {"iteration": snapshot["iteration"], "content": rest}
    return {**guard, "snapshots": plain}, tensors


def restore_snapshots(
    place: Path, guard: dict[str, Any], parameters: Mapping[str, nn.Parameter]
) -> dict[str, Any]:
    """Return the guard's state with this process's parts of its snapshots' tensors.

    Args:
        place: the checkpoint, with or without shards.
        guard: as it stands in ``run.safetensors``.
        parameters: the trained parameters, whole or sharded.

    Raises:
        CheckpointError: the files cannot be read.
    """
    snapshots = guard.get("snapshots") or {}
    if not has_shards(place):
        return {**guard, "snapshots": {role: _parts(one, parameters) for role, one in snapshots.items()}}
    shapes = shapes_in(place / FOLDER)
    restored = dict(snapshots)
    for role, snapshot in snapshots.items():
        if snapshot is None:
            continue
        content = dict(snapshot["content"])
        content["weights"] = {name: _empty_part(value) for name, value in parameters.items()}
        content["moments"] = {
            name: {
                **content["moments"].get(name, {}),
                **{
                    key: _empty_part(parameter)
                    for key in _moments(shapes)
                    if f"{GUARD}.{role}.moments.{key}.{name}" in shapes
                },
            }
            for name, parameter in parameters.items()
            if name in content["moments"]
        }
        restored[role] = {**snapshot, "content": content}
    state = {**guard, "snapshots": restored}
    _read(place, take_snapshots(state, parameters)[1])
    return state


def _parts(snapshot: dict[str, Any] | None, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any] | None:
    """Return a snapshot of whole tensors with this process's parts of them."""
    if snapshot is None:
        return None

    def part(name: str, value: Any) -> Any:
        is_whole = isinstance(value, Tensor) and value.shape == parameters[name].shape
        return part_of(value, parameters[name]).clone() if is_whole else value

    content = snapshot["content"]
    return {
        **snapshot,
        "content": {
            **content,
            "weights": {name: part(name, value) for name, value in content["weights"].items()},
            "moments": {
                name: {key: part(name, value) for key, value in values.items()}
                for name, values in content["moments"].items()
            },
        },
    }


def _read(place: Path, tensors: Mapping[str, Tensor]) -> None:
    sharded = any(is_sharded(value) for value in tensors.values())
    if tensors:
        read_shards(place / FOLDER, tensors, together=sharded)


def _moments(shapes: Iterable[str]) -> list[str]:
    """Return the names of the moments, such as ``exp_avg``."""
    names = (name.removeprefix("moments.") for name in shapes if name.startswith("moments."))
    return sorted({name.split(".")[0] for name in names})


def _empty_part(parameter: Tensor) -> Tensor:
    return torch.zeros_like(local_value(parameter), device="cpu")


def check_names(place: Path, found: Mapping[str, Any], expected: Mapping[str, nn.Parameter]) -> None:
    """Raise ``CheckpointError`` unless the weights in a checkpoint are those that the run trains.

    Args:
        place: the checkpoint.
        found: the shape of each of its weights.
        expected: the trained parameters.
    """
    wrong = [
        name
        for name in {*expected, *found}
        if name not in expected or name not in found or tuple(expected[name].shape) != tuple(found[name])
    ]
    if wrong:
        raise CheckpointError(
            f"{place} holds other weights than this run trains, for instance {min(wrong)}; resume with "
            "the policy section that the run was started with, or choose another output folder"
        )
