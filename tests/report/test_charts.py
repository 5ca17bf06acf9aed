"""Charts of a run: one per metric, with bounded size, without text from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mm_cpgd.report.charts import draw_charts, draw_other_metrics, rolling_mean, shorten_series
from mm_cpgd.report.run_data import RunData, load_run
from mm_cpgd.tracking import MetricsLog


def test_a_chart_is_drawn_for_each_metric_that_exists(run: Path) -> None:
    titles = [chart.title for chart in draw_charts(load_run(run))]
    assert titles == ["Reward", "Accuracy", "Policy drift"]


def test_a_chart_takes_its_colours_from_the_page(run: Path) -> None:
    svg = draw_charts(load_run(run))[0].svg
    assert "var(--series-0)" in svg
    assert "#0" not in svg.replace('"#', "").replace("url(#", "")


def test_unknown_metrics_are_drawn_separately_and_their_names_stay_out_of_the_svg(run: Path) -> None:
    MetricsLog(run / "metrics.jsonl").write(
        8, {"sft/<b>": 0.5, "note": "text", "flag": True, "large": 10**400}
    )
    charts = draw_other_metrics(load_run(run))
    assert [chart.title for chart in charts] == ["sft/<b>"]
    assert "sft" not in charts[0].svg


def test_a_single_point_and_nulls_can_be_drawn() -> None:
    rows: list[dict[str, Any]] = [
        {"iteration": 1, "reward/mean": None},
        {"iteration": 2, "reward/mean": 0.5, "reward/std": 0.1},
    ]
    charts = draw_charts(RunData(Path(), {}, rows, {}))
    assert [chart.title for chart in charts] == ["Reward"]


def test_long_runs_draw_a_bounded_page(run: Path) -> None:
    rows = [{"iteration": i, "reward/mean": i % 7, "reward/std": 1.0} for i in range(20_000)]
    assert len(draw_charts(RunData(run, {}, rows, {}))[0].svg) < 120_000


def test_shortening_keeps_means() -> None:
    assert shorten_series([(1, 1.0), (2, 3.0), (3, 5.0), (4, 9.0), (5, 2.0)], most=3) == [
        (1.5, 2.0),
        (3.5, 7.0),
        (5.0, 2.0),
    ]
    assert shorten_series([]) == []


def test_smoothing_is_centred_and_narrower_at_the_ends() -> None:
    assert rolling_mean([0.0, 3.0, 6.0, 0.0], 3) == [1.5, 3.0, 3.0, 3.0]
