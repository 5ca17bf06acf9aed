"""Parts of tensors: norms, samples and layouts are those of the whole tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from mm_cpgd.policy.sharding.tensors import (
    clip_gradients,
    full_value,
    is_sharded,
    local_value,
    offset_of,
    part_of,
    replace_tensors,
    sample_values,
    sum_over_processes,
    with_layout,
)
from tests.fakes.processes import on_processes

SHAPES = ((7, 3), (1, 5), (4,), (2, 2, 2))


def values(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def sharded_parameters() -> list[nn.Parameter]:
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    found = []
    for value, gradient in zip(values(0), values(1), strict=True):
        parameter = nn.Parameter(distribute_tensor(value, mesh, [Shard(0)]))
        parameter.grad = distribute_tensor(gradient, mesh, [Shard(0)])
        found.append(parameter)
    return found


def whole_parameters() -> list[nn.Parameter]:
    found = [nn.Parameter(value) for value in values(0)]
    for parameter, gradient in zip(found, values(1), strict=True):
        parameter.grad = gradient
    return found


def clip(limit: float) -> tuple[float, list[Tensor]]:
    parameters = sharded_parameters()
    norm = clip_gradients(parameters, limit)
    return norm, [full_value(one.grad) for one in parameters if one.grad is not None]


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_gradients_are_clipped_by_the_norm_over_all_processes(limit: float) -> None:
    expected = whole_parameters()
    norm = float(nn.utils.clip_grad_norm_(expected, limit))
    for found, gradients in on_processes(3, clip, limit):
        assert found == pytest.approx(norm, rel=1e-6)
        for one, parameter in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, parameter.grad, rtol=1e-5, atol=1e-7)


def clip_with_a_gap() -> float:
    parameters = sharded_parameters()
    if torch.distributed.get_rank() == 1:
        local_value(parameters[0].grad)[0, 0] = float("nan")
    return clip_gradients(parameters, 1.0)


def test_a_gradient_that_is_not_finite_on_one_process_is_so_on_all() -> None:
    assert all(norm != norm for norm in on_processes(2, clip_with_a_gap))


def sample() -> list[Tensor]:
    return [sample_values(local_value(one), one, 5) for one in sharded_parameters()]


def test_sampled_values_of_all_processes_are_those_of_the_whole_tensor() -> None:
    parts = on_processes(3, sample)
    for number, value in enumerate(values(0)):
        stride = max(1, -(-value.numel() // 5))
        together = torch.cat([own[number] for own in parts])
        torch.testing.assert_close(together, value.flatten()[::stride], rtol=0, atol=0)
        assert sample_values(value, value, 5).tolist() == together.tolist()


def layouts() -> list[tuple[bool, int, bool, bool]]:
    found = []
    for parameter, whole in zip(sharded_parameters(), values(0), strict=True):
        part = part_of(whole, parameter)
        again = with_layout(part.clone(), parameter)
        same = torch.equal(part, local_value(parameter))
        found.append((same, offset_of(parameter), is_sharded(again), torch.equal(full_value(again), whole)))
    return found


def test_a_part_is_cut_from_the_whole_and_put_together_again() -> None:
    results = on_processes(3, layouts)
    assert all(same and sharded and equal for own in results for same, _, sharded, equal in own)
    # Seven rows on three processes: three, three and one; a single row: the others have none.
    assert [own[0][1] for own in results] == [0, 3, 6]
    assert [own[1][1] for own in results] == [0, 1, 1]


def total() -> float:
    return float(sum_over_processes(torch.tensor(2.0), sharded_parameters()))


def test_sums_are_over_processes_only_where_weights_are_sharded() -> None:
    assert on_processes(2, total) == [4.0, 4.0]
    assert float(sum_over_processes(torch.tensor(2.0), whole_parameters())) == 2.0


def test_whole_tensors_are_their_own_part() -> None:
    (parameter, *_) = whole_parameters()
    assert not is_sharded(parameter)
    assert full_value(parameter).data_ptr() == local_value(parameter).data_ptr() == parameter.data_ptr()
    assert part_of(parameter, parameter) is with_layout(parameter, parameter) is parameter
    assert offset_of(parameter) == 0


def test_replaced_tensors_stay_shared() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    new: Any = nn.Parameter(torch.zeros(2, 2))
    replace_tensors(model, {id(first.weight): new})
    assert first.weight is second.weight is new
