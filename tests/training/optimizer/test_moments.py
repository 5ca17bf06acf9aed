"""Moments as they are stored: close to what was written, and never 0 below a square root in a denominator."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_cpgd.training.optimizer.moments import FIRST, SECOND, new_moments, read, write

EVERYTHING = slice(0, 5000)


def moments() -> dict[str, Tensor]:
    return new_moments(
        torch.zeros(50, 100), lambda shape, dtype: torch.empty(shape, dtype=dtype), eight_bit=True
    )


def test_new_moments_are_zero_in_one_byte_and_a_scale_for_256_values() -> None:
    found = moments()
    assert {(name, tuple(value.shape), value.dtype) for name, value in found.items()} == {
        ("exp_avg", (50, 100), torch.uint8),
        ("exp_avg_sq", (50, 100), torch.uint8),
        ("exp_avg_scale", (20,), torch.float32),
        ("exp_avg_sq_scale", (20,), torch.float32),
    }
    for name in (FIRST, SECOND):
        assert (read(found, name, EVERYTHING) == 0).all()


def test_what_is_read_is_what_was_written_up_to_the_resolution() -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 1e-4
    values[:512] *= 1e3
    found = moments()
    write(found, FIRST, EVERYTHING, values)
    write(found, SECOND, EVERYTHING, values.square())
    for name, wanted in ((FIRST, values), (SECOND, values.square())):
        error = (read(found, name, EVERYTHING) - wanted).abs()
        largest = torch.cat([part.abs().max().expand(len(part)) for part in wanted.split(256)])
        assert (error <= 0.02 * largest).all()
        assert error.norm() <= 0.02 * wanted.norm()


def test_parts_are_those_of_the_whole() -> None:
    values = torch.linspace(-1, 1, 5000)
    whole, parts = moments(), moments()
    write(whole, FIRST, EVERYTHING, values)
    for part in (slice(0, 1024), slice(1024, 4096), slice(4096, 5000)):
        write(parts, FIRST, part, values[part])
        assert torch.equal(read(parts, FIRST, part), read(whole, FIRST, EVERYTHING)[part])
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_a_second_moment_that_was_stored_as_zero_is_read_as_the_smallest_one_above() -> None:
    found = moments()
    found["exp_avg_sq_scale"][:] = torch.arange(20.0)
    values = read(found, SECOND, EVERYTHING)
    assert (values[:256] == 0).all()
    assert (values[256:] > 0).all()
    assert (values[256:] < 1e-6 * 20).all()
