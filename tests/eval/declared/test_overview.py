"""Overview of the benchmarks, and the page that shows it."""

from __future__ import annotations

import pytest

from eval.benchmarks import benchmark_names
from eval.declared.overview import OFFICIAL, markdown, overview
from tests.paths import DOCS


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_says_what_its_official_number_is(name: str) -> None:
    one = overview(name)
    assert one.name == name
    assert one.official in OFFICIAL
    assert one.title
    assert one.source


def test_the_page_has_the_table_and_notes_of_all_declared_benchmarks() -> None:
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    missing = [line for line in markdown().splitlines() if line not in page.splitlines()]
    assert missing == [], "put the output of mm-cpgd benchmarks --markdown into docs/benchmarks.md"


def test_what_was_not_run_says_so() -> None:
    assert overview("mmstar").checked == "not yet run on the real file"
    assert "not yet run on the real file" in overview("emma").checked
