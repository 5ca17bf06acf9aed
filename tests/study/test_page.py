"""Page of a study, from its results."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mm_cpgd.study.grid import Grid
from mm_cpgd.study.page import READING, render
from mm_cpgd.study.results import write_run
from mm_cpgd.study.run import report_study
from tests.fakes.study import GRID, fill, made_up


@pytest.fixture
def _undrawn(monkeypatch):
    monkeypatch.setattr("mm_cpgd.study.page.draw_plots", lambda *_: [f"{i}.png" for i in range(7)])


def test_page_and_plots_are_generated_from_the_results(tmp_path):
    fill(tmp_path / "study")
    page = report_study(tmp_path / "study", tmp_path / "docs" / "stability.md")
    text = page.read_text()
    # PG ends at 10 % and 20 % of a best of 90 %: all eight of its runs collapsed, none of CPGD's.
    assert "| PG | 8/8 = 100 % (68–100) |" in text
    assert "| CPGD | 0/8 = 0 % (0–32) |" in text
    assert "In collapses CPGD is number 1 of 2." in text
    plots = {line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert len(plots) == 7
    assert all((page.parent / plot).stat().st_size > 5000 for plot in plots)
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert summary["methods"]["pg"]["collapse"]["rate"] == 1.0


@pytest.mark.usefixtures("_undrawn")
def test_the_page_says_when_cpgd_is_not_first(tmp_path):
    grid = replace(GRID, methods=("cpgd", "grpo"))
    fill(tmp_path, grid)
    for trial in grid.trials():
        write_run(tmp_path, made_up(trial, grid, tmp_path, 0.1 if trial.method == "cpgd" else 0.8))
    text = report_study(tmp_path).read_text()
    assert "In collapses CPGD is number 2 of 2; GRPO is first." in text
    assert "| GRPO | 2e-4 × 4 | +70.0 (+70.0 to +70.0) |" in text


@pytest.mark.usefixtures("_undrawn")
def test_the_text_written_by_hand_is_kept(tmp_path):
    fill(tmp_path)
    page = report_study(tmp_path)
    first = page.read_text()
    page.write_text(first.replace(READING[0] + "\n", READING[0] + "\n### What it means\n\nMuch.\n"))
    again = report_study(tmp_path).read_text()
    assert "### What it means\n\nMuch.\n" + READING[1] in again
    assert again.count(READING[0]) == first.count(READING[0]) == 1


@pytest.mark.usefixtures("_undrawn")
def test_an_interrupted_study_has_a_page_with_gaps(tmp_path):
    fill(tmp_path, replace(GRID, methods=("pg", "cpgd", "grpo")))
    for file in (tmp_path / "runs").glob("grpo-*"):
        file.unlink()
    text = report_study(tmp_path).read_text()
    assert "**The study is incomplete**" in text
    assert "| PG | +75.0 (" in text


def test_the_page_before_any_run_has_no_findings():
    assert "None yet" in render(Grid(), None)
