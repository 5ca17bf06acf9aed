"""report.html: complete, readable from disk alone, and safe whatever the model wrote."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import UserError
from mm_cpgd.report.charts import draw_charts
from mm_cpgd.report.page import duration, write_report
from mm_cpgd.report.run_data import load_run
from mm_cpgd.tracking import MetricsLog, PromptRollout, RolloutLog, ScoredCompletion, ScoredComponent
from tests.fakes.rollouts import red_image, write_rollouts

HOSTILE = (
    "</p></svg><script>alert(1)</script><img src=x onerror=alert(2)>\"' --> ]]> \x00\x1b[0m\u202eabc\udc80"
)


class Page(HTMLParser):
    """The page as a browser parses it: tags, attributes, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def write_summary(run: Path, value: Any) -> None:
    (run / "summary.json").write_text(json.dumps(value))


def test_the_header_shows_name_model_recipe_and_accuracy_with_its_interval(run: Path) -> None:
    write_summary(
        run, {"accuracy": {"before": 0.5, "after": 0.0, "n": 10}, "seconds": {"rl": 185, "eval": 7.26}}
    )
    text = " ".join(page(run).text.split())
    for part in ("toy", "embedded:tiny", "cpgd", "50.0 %", "0.0 %", "−50.0 points", "3 min 05 s", "7.3 s"):
        assert part in text
    assert "before: 95 % interval 23.7–76.3 %, n = 10" in text
    assert "after: 95 % interval 0.0–27.8 %, n = 10" in text


def test_without_a_summary_the_accuracy_comes_from_the_evaluations(run: Path) -> None:
    text = " ".join(page(run).text.split())
    assert "25.0 % → 75.0 % +50.0 points" in text
    assert "n = 400" in text
    assert "Training 12 s" in text


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts", "summary.json", "config.yaml"])
def test_a_report_is_written_without_any_one_file(run: Path, name: str) -> None:
    (run / name).rename(run / "away") if (run / name).exists() else None
    assert "training report" in page(run).text


@pytest.mark.parametrize(
    "summary", [{}, [], {"accuracy": "high"}, {"accuracy": {"before": 7, "n": 0}}, {"seconds": [1]}]
)
def test_a_summary_of_another_form_is_ignored(run: Path, summary: Any) -> None:
    write_summary(run, summary)
    assert "75.0 %" in page(run).text


def test_a_folder_that_is_no_run_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither config\.yaml nor metrics.jsonl"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        write_report(tmp_path / "absent")


def test_hostile_text_cannot_leave_its_place(run: Path) -> None:
    (run / "config.yaml").write_text(json.dumps({"name": HOSTILE[:60], "seed": HOSTILE[:60]}))
    MetricsLog(run / "metrics.jsonl").write(8, {HOSTILE.replace("\udc80", ""): 1.0})
    completion = ScoredCompletion(
        HOSTILE, 1, True, None, None, {HOSTILE: ScoredComponent(None, HOSTILE, HOSTILE, HOSTILE)}
    )
    write_rollouts(
        RolloutLog(run / "rollouts"),
        7,
        [PromptRollout(HOSTILE, HOSTILE, HOSTILE, (completion,))],
        [[red_image()]],
    )
    seen = page(run)
    assert "script" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert seen.text.count("<script>alert(1)</script>") >= 8
    assert not any(char in seen.text for char in "\x00\x1b\u202e")


def test_the_page_forbids_scripts_and_loads_nothing(run: Path) -> None:
    seen = page(run)
    policies = [
        value for name, value in seen.attributes if name == "content" and value and "default-src" in value
    ]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]
    links = [value or "" for name, value in seen.attributes if name in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("data:image/", "#")) for link in links)


def test_every_id_in_the_page_is_unique(run: Path) -> None:
    used = {value for name, value in page(run).attributes if name == "xlink:href"}
    svg = [chart.svg for chart in draw_charts(load_run(run))]
    assert used
    for link in used:
        assert sum(f'id="{(link or "")[1:]}"' in chart for chart in svg) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.24, "1.2 s"), (59, "59 s"), (59.9, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_are_written_with_their_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
