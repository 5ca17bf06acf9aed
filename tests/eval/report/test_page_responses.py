"""Texts of the response browser: shortened to a budget."""

from __future__ import annotations

from eval.report.page import longest_text, shortened


def test_a_long_response_keeps_its_beginning_and_its_end() -> None:
    assert shortened("a" * 10 + "b" * 90 + "c" * 10, 20) == (
        "a" * 10 + "\n\n[… 90 characters omitted …]\n\n" + "c" * 10
    )
    assert shortened("abc", 3) == "abc"


def test_responses_are_cut_until_all_of_them_fit() -> None:
    assert longest_text(["a" * 30_000] * 3, budget=60_000) == 20_000
    assert longest_text(["a" * 30_000] * 3, budget=59_999) == 10_000
    assert longest_text(["a" * 30_000] * 1000, budget=10) == 500
