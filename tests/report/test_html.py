"""Text in a page."""

from __future__ import annotations

from mm_cpgd.report.html import sanitize


def test_long_text_is_cut_with_a_count() -> None:
    assert sanitize("a" * 1500, 100) == "a" * 100 + "… (1,400 more characters)"
