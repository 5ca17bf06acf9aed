"""Results of the GPU measurements: JSON lines and Markdown, complete at every moment."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu.results import Results, shown, table


def test_a_row_is_in_both_files_before_its_section_ends(tmp_path: Path) -> None:
    results = Results(tmp_path, "# Measurements")
    results.add("update", {"model": "3b", "seconds": 1.25})
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"section": "update", "row": {"model": "3b", "seconds": 1.25}}
    ]
    page = (tmp_path / "results.md").read_text()
    assert "| 3b | 1.25 |" in page
    assert "(update: not ended)" in page


def test_the_end_of_a_section_says_how_and_why(tmp_path: Path) -> None:
    results = Results(tmp_path, "")
    results.end("growth", "failed", 3.4, "no memory")
    assert json.loads((tmp_path / "results.jsonl").read_text()) == {
        "section": "growth", "outcome": "failed", "seconds": 3.4, "reason": "no memory"
    }  # fmt: skip
    assert "(growth: failed after 3 s: no memory)" in (tmp_path / "results.md").read_text()


def test_a_table_has_the_columns_of_all_rows() -> None:
    rows = [{"engine": "local", "tokens/s": 12345.6}, {"engine": "vLLM", "note": "not installed: vllm"}]
    assert table(rows).splitlines() == [
        "| engine | tokens/s | note |",
        "| --- | --- | --- |",
        "| local | 12,346 |  |",
        "| vLLM |  | not installed: vllm |",
    ]


def test_numbers_are_shown_with_three_digits() -> None:
    assert [shown(one) for one in (0.012345, 12.345, 123456.0, 123456, None)] == [
        "0.0123", "12.3", "123,456", "123,456", ""
    ]  # fmt: skip
