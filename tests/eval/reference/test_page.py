"""The reference page: docs/reference.md is the tables' page."""

from __future__ import annotations

from eval.reference.page import reference_page, source_letters, sources_of
from eval.reference.tables import Own, load_ours, load_published
from tests.paths import DOCS

PUBLISHED = load_published()


def test_the_page_in_the_documents_is_that_of_the_tables() -> None:
    """After a change: ``mm-cpgd reference --markdown > docs/reference.md``."""
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == reference_page(PUBLISHED, load_ours())


def test_equal_numbers_are_written_once_and_own_runs_are_bold() -> None:
    page = reference_page(PUBLISHED, [])
    letters = source_letters(PUBLISHED)
    (row,) = [
        line
        for line in page.split("## mathvista\n")[1].split("##")[0].splitlines()
        if "| Qwen2.5-VL-7B |" in line
    ]
    noisy, report, omni = (
        next(letter for source, letter in letters.items() if name in source)
        for name in ("2504.13055", "2502.13923", "Omni")
    )
    assert row.count("68.2") == 2
    assert f"**67.5** ({noisy})" in row
    assert f"**68.2** ({omni} {report})" in row
    assert row.endswith("| – |")


def test_a_number_of_a_part_of_a_benchmark_has_a_row_of_its_own() -> None:
    rows = reference_page(PUBLISHED, []).split("## mathverse\n")[1].split("##")[0]
    assert "| Qwen2.5-VL-7B, Vision Only | 41.1 " in rows
    assert "| Qwen2.5-VL-7B | 47.9 " in rows


def test_numbers_of_our_own_runs_stand_beside_the_published_ones() -> None:
    own = Own(
        model="Qwen2.5-VL-7B", benchmark="mathvista", split="testmini", protocol="judge", number=67.9, n=1000,
        interval=(64.9, 70.7), command="mm-cpgd eval",
    )  # fmt: skip
    page = reference_page(PUBLISHED, [own])
    assert page.count("| 67.9 (64.9 – 70.7, judge) |") == 1


def test_every_source_is_listed_with_its_address_and_its_settings() -> None:
    lines = list(sources_of(PUBLISHED, source_letters(PUBLISHED)))
    assert len(lines) == len({one.source for one in PUBLISHED})
    (rethinker,) = [line for line in lines if "2504.08837" in line]
    assert "https://arxiv.org/abs/2504.08837" in rethinker
    assert "min_pixels 200,704, max_pixels 1,003,520, temperature 0, markers `\\boxed`" in rethinker
