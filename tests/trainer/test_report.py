"""report.html: complete, readable from disk alone, and safe whatever the model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data.example import ImageRef
from mm_cpgd.errors import UserError
from mm_cpgd.report import write_report
from mm_cpgd.report.charts import draw_charts, draw_others, rolling_mean, shorten_series
from mm_cpgd.report.examples import choose_rollouts, spread, thirds
from mm_cpgd.report.page import duration, visible
from mm_cpgd.report.run_data import RunData, load_run, wilson
from mm_cpgd.tracking import MetricsLog, PromptRollout, RolloutLog, ScoredCompletion, ScoredComponent

HOSTILE = (
    "</p></svg><script>alert(1)</script><img src=x onerror=alert(2)>\"' --> ]]> \x00\x1b[0m\u202eabc\udc80"
)
CONFIG = "name: toy\nseed: 3\npolicy: {model: 'embedded:tiny'}\nalgorithm: {recipe: cpgd}\n"


RIGHT = ScoredComponent(1.0, "correct", "4", "4 equals 4")
WRONG = ScoredComponent(0.0, "wrong", "5", "5 differs from 4")


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, text."""

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


def put(log: RolloutLog, *rollouts: Any, force: bool = False) -> None:
    """Write rollouts and wait until they are on disk."""
    log.write(*rollouts, force=force)
    log.flush()


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def red() -> ImageRef:
    return ImageRef("drawn", lambda: Image.new("RGB", (8, 8), "red"))


def group(right: int, size: int = 4, text: str = "<answer>4</answer>", name: str = "q") -> PromptRollout:
    completions = tuple(
        ScoredCompletion(text, 9, i > 0, float(i < right), 0.5, {"accuracy": RIGHT if i < right else WRONG})
        for i in range(size)
    )
    return PromptRollout(name, "How many?", "4", completions)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    metrics.write(0, {"eval/accuracy": 0.25, "eval/n": 400})
    for iteration in range(1, 7):
        metrics.write(
            iteration, {"reward/mean": iteration / 7, "policy/drift": 0.001, "seconds/iteration": 2.0}
        )
    metrics.write(7, {"eval/accuracy": 0.75, "eval/n": 400})
    log = RolloutLog(tmp_path / "rollouts")
    for iteration in range(1, 7):
        put(log, iteration, [group(2)], [[red()]])
    return tmp_path


def write_summary(run: Path, value: Any) -> None:
    (run / "summary.json").write_text(json.dumps(value))


def test_the_head_shows_name_model_recipe_and_accuracy_with_its_interval(run: Path) -> None:
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
def test_a_report_is_written_without_any_one_part(run: Path, name: str) -> None:
    (run / name).rename(run / "away") if (run / name).exists() else None
    assert "training report" in page(run).text


@pytest.mark.parametrize(
    "summary", [{}, [], {"accuracy": "high"}, {"accuracy": {"before": 7, "n": 0}}, {"seconds": [1]}]
)
def test_a_summary_of_another_form_is_passed_over(run: Path, summary: Any) -> None:
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
    put(RolloutLog(run / "rollouts"), 7, [PromptRollout(HOSTILE, HOSTILE, HOSTILE, (completion,))], [[red()]])
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


def test_every_id_in_the_page_is_its_own(run: Path) -> None:
    used = {value for name, value in page(run).attributes if name == "xlink:href"}
    svg = [chart.svg for chart in draw_charts(load_run(run))]
    assert used
    for link in used:
        assert sum(f'id="{(link or "")[1:]}"' in chart for chart in svg) == 1


def test_a_chart_is_drawn_for_each_metric_that_is_there(run: Path) -> None:
    titles = [chart.title for chart in draw_charts(load_run(run))]
    assert titles == ["Reward", "Accuracy", "Policy drift"]


def test_a_chart_takes_its_colours_from_the_page(run: Path) -> None:
    svg = draw_charts(load_run(run))[0].svg
    assert "var(--series-0)" in svg
    assert "#0" not in svg.replace('"#', "").replace("url(#", "")


def test_unknown_metrics_are_shown_apart_and_their_names_stay_out_of_the_svg(run: Path) -> None:
    MetricsLog(run / "metrics.jsonl").write(
        8, {"sft/<b>": 0.5, "note": "text", "flag": True, "large": 10**400}
    )
    charts = draw_others(load_run(run))
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


@pytest.mark.parametrize(
    ("value", "n", "low", "high"),
    [(0.5, 10, 0.23659, 0.76341), (0.0, 10, 0.0, 0.27754), (1.0, 500, 0.99238, 1.0)],
)
def test_the_interval_is_wilsons(value: float, n: int, low: float, high: float) -> None:
    assert wilson(value, n) == pytest.approx((low, high), abs=1e-5)


def test_the_interval_holds_the_shares_that_a_score_test_keeps() -> None:
    value, n = 0.3, 40
    for end in wilson(value, n):
        assert abs(value - end) / (end * (1 - end) / n) ** 0.5 == pytest.approx(1.959964, abs=1e-5)


def rollouts(
    folder: Path, groups: Sequence[Sequence[PromptRollout]], images: Callable[[int], list[ImageRef]]
) -> None:
    log = RolloutLog(folder, images=9)
    for iteration, prompts in enumerate(groups, 1):
        put(log, iteration, prompts, [images(index) for index in range(len(prompts))])


def test_rollouts_are_chosen_early_middle_and_late_right_and_wrong(tmp_path: Path) -> None:
    rollouts(tmp_path, [[group(i % 5), group((i + 2) % 5)] for i in range(30)], lambda _: [red()])
    chosen = choose_rollouts(tmp_path)
    assert [shown.stage for shown in chosen] == ["early"] * 4 + ["middle"] * 4 + ["late"] * 4
    assert [shown.iteration for shown in chosen] == sorted(shown.iteration for shown in chosen)
    for stage in ("early", "middle", "late"):
        assert sorted(shown.right for shown in chosen if shown.stage == stage) == [0, 2, 2, 4]


def test_prompts_with_a_picture_come_first(tmp_path: Path) -> None:
    prompts = [group(4, name="seen"), group(4, name="unseen")]
    rollouts(tmp_path, [prompts] * 3, lambda index: [red()] if index == 0 else [])
    assert [shown.prompt.id for shown in choose_rollouts(tmp_path, per_stage=1)] == ["seen"] * 3


def test_an_image_outside_the_folder_is_not_inlined(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path / "rollouts")
    put(log, 1, [group(1)], [[red()]])
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "rollouts" / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    row = json.loads(log.path(1).read_text())
    row["images"] = ["../../secret.png", "link.png", "../../config.yaml", "absent.png", *row["images"]]
    log.path(1).write_text(json.dumps(row) + "\n")
    shown = choose_rollouts(tmp_path / "rollouts")
    assert [len(one.images) for one in shown] == [1]


def test_thirds_cover_everything_once() -> None:
    assert thirds([1, 2, 3, 4, 5]) == [[1, 2], [3], [4, 5]]
    assert thirds([]) == [[], [], []]


def test_spread_holds_the_first_and_the_last() -> None:
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 4) == [1, 2]


def test_long_text_is_cut_with_a_count() -> None:
    assert visible("a" * 1500, 100) == "a" * 100 + "… (1,400 more characters)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.24, "1.2 s"), (59, "59 s"), (59.9, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
