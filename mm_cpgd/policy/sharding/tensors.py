"""Values of parameters that may be shards: this process's part, the whole, and sums over all parts.

A sharded parameter is a ``DTensor`` (torch.distributed.tensor); a plain tensor is complete on every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def is_sharded(value: Any) -> bool:
    """Return whether this process holds a part of the tensor only."""
    return isinstance(value, DTensor)


def full_value(value: Tensor) -> Tensor:
    """Return the whole tensor without gradient; called on all processes, for the same tensors in turn."""
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def local_value(value: Tensor) -> Tensor:
    """Return this process's part of a tensor without gradient, in the same memory."""
    value = value.detach()
    return value.to_local() if isinstance(value, DTensor) else value


def offset_of(value: Tensor) -> int:
    """Return where this process's part begins in the first dimension."""
    if not isinstance(value, DTensor) or not value.ndim:
        return 0
    # FSDP2 divides the first dimension as torch.chunk does.
    rows = -(-value.shape[0] // value.device_mesh.size())
    return min(value.shape[0], value.device_mesh.get_local_rank() * rows)


def sum_over_processes(value: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Return the sum over all processes if any of the parameters is sharded, else the value itself."""
    mesh = next((one.device_mesh for one in parameters if isinstance(one, DTensor)), None)
    if mesh is None:
        return value
    total = value.to(mesh.device_type, copy=True)
    torch.distributed.all_reduce(total, group=mesh.get_group())
    return total


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale the gradients so that the norm of all of them, over all processes, is at most ``max_norm``.

    Returns:
        The norm before.
    """
    gradients = [local_value(one.grad) for one in parameters if one.grad is not None]
    squares = [torch.linalg.vector_norm(one, dtype=torch.float32).double().square() for one in gradients]
    zero = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
    norm = float(sum_over_processes(sum(squares, zero), parameters).sqrt())
    factor = max_norm / (norm + 1e-6)
    if factor < 1:  # not of NaN: the caller skips such a step
        for one in gradients:
            one.mul_(factor)
    return norm


def sample_values(value: Tensor, parameter: Tensor, count: int) -> Tensor:
    """Return this process's part of up to ``count`` evenly spaced values of a whole tensor (n,).

    Args:
        value: this process's part.
        parameter: the parameter that it is a value of, whole or sharded.
        count: of all processes together.
    """
    stride = max(1, -(-parameter.numel() // count))
    start = offset_of(parameter) * (parameter.numel() // max(1, parameter.shape[0])) if parameter.ndim else 0
    return value.flatten()[(-start) % stride :: stride]


def forget_gathered(module: nn.Module) -> None:
    """Free what earlier forward passes have gathered, so that the next one sees shards that have changed."""
    for child in module.modules():
        if isinstance(child, FSDPModule):
            child.reshard()


def replace_tensors(module: nn.Module, new: Mapping[int, Any]) -> None:
    """Put other parameters and buffers in place of those with these ``id``s; shared ones stay shared."""
    for child in module.modules():
        for held in (child._parameters, child._buffers):
            for name, value in held.items():
                if value is not None and id(value) in new:
                    held[name] = new[id(value)]


def part_of(whole: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's part of a whole tensor of a parameter's shape; of a plain parameter all of it."""
    if not isinstance(parameter, DTensor):
        return whole
    start = offset_of(parameter)
    return whole[start : start + len(local_value(parameter))]


def with_layout(part: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor that is sharded as a parameter is, from this process's part of it.

    The part may be on another device than the parameter; it stays there. For a plain parameter the part is
    the tensor.
    """
    if not isinstance(parameter, DTensor):
        return part
    mesh = _mesh(part.device.type, parameter.device_mesh)
    return DTensor.from_local(
        part,
        mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _mesh(kind: str, mesh: DeviceMesh) -> DeviceMesh:
    """Return the mesh itself, or that of the same processes on another kind of device."""
    if kind == mesh.device_type:
        return mesh
    if kind not in _MESHES:
        _MESHES[kind] = init_device_mesh(kind, (mesh.size(),))
    return _MESHES[kind]


_MESHES: dict[str, DeviceMesh] = {}
