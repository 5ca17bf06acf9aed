"""What a result shows in the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from mm_cpgd.cli.results import print_scoreboard


def shown(metrics: dict[str, object]) -> str:
    overall = {"correct": 3, "total": 4, "accuracy": 0.75, "interval": [0.3, 0.95]}
    protocol = {
        "overall": overall,
        "groups": {},
        "metrics": metrics,
        "unscored": {"count": 0, "share": 0.0},
        "unparsed": {"count": 0, "share": 0.0},
    }
    summary = {
        "benchmark": "mmbench_en",
        "truncated": None,
        "samples": None,
        "protocols": {"official": protocol},
        "flags": [],
    }
    stream = io.StringIO()
    print_scoreboard(summary, Console(file=stream, width=100))
    return stream.getvalue()


def test_a_benchmarks_own_metrics_are_printed_with_the_groups_that_they_cover() -> None:
    lines = shown({"circular": 0.5, "circular_groups": 1164, "domains": {"algebra": 0.1}}).splitlines()
    rows = [line.replace("│", " ").split() for line in lines]
    assert ["circular", "50.0"] in rows
    assert ["circular_groups", "1,164"] in rows
    assert not any("domains" in row for row in rows)


def test_a_metric_of_no_group_prints_nothing() -> None:
    assert "worst_case" not in shown({"worst_case": None, "variants": {}})


def test_a_result_without_metrics_has_no_table_of_them() -> None:
    assert "metric" not in shown({})
