"""Sections of the GPU measurements: each is a module, and all fit into the time of the run."""

from __future__ import annotations

import pytest

from benchmarks.gpu.sections import SECTIONS, limit, rows_of


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_has_a_module_that_measures_it(name: str) -> None:
    assert callable(rows_of(name))


def test_sections_that_use_all_their_time_use_that_of_the_run() -> None:
    chosen, left = list(SECTIONS), 440.0
    for name in chosen:
        left -= limit(name, chosen, left)
    assert left == pytest.approx(0)


def test_time_that_a_section_leaves_goes_to_the_ones_after_it() -> None:
    chosen = ["numerics", "update"]
    share = SECTIONS["numerics"].share / (SECTIONS["numerics"].share + SECTIONS["update"].share)
    assert limit("numerics", chosen, 100) == pytest.approx(100 * share)
    assert limit("update", chosen, 95) == 95
