"""Results beside published numbers: difference, interval, and settings that differ."""

from __future__ import annotations

from typing import Any

import pytest

from eval.reference.against import UNKNOWN, compare_with_published, reference_lines, settings_differ
from eval.reference.tables import Published, PublishedSettings, load_published

SETTINGS: dict[str, Any] = {
    "model": "Qwen/Qwen2.5-VL-7B-Instruct", "split": None, "limit": None, "min_pixels": None,
    "max_pixels": 1003520, "max_new_tokens": 2048, "temperature": 0.0, "top_p": 1.0, "system_prompt": "",
    "first_prompt": r"How many? Put it in \boxed{}.", "control": None,
}  # fmt: skip


def published(**changes: Any) -> Published:
    values: dict[str, Any] = {
        "model": "Qwen2.5-VL-7B", "benchmark": "mathvista", "split": "testmini", "value": "accuracy",
        "number": 68.2, "n": None, "rule": "official", "origin": "own run", "source": "A, Table 1",
        "url": "https://example.org", "read": "from it", "note": None, "about": None,
        "settings": PublishedSettings(),
    }  # fmt: skip
    return Published(**{**values, **changes})


def summary(accuracy: float | None = 0.65, n: int = 1000, **settings: Any) -> dict[str, Any]:
    """Return a summary whose interval is three points wide on either side."""
    around = accuracy or 0.0
    own = {
        "overall": {"accuracy": accuracy, "interval": [around - 0.03, around + 0.03], "total": n},
        "groups": {
            "problem version": {"Vision Only": {"accuracy": 0.4, "interval": [0.3, 0.5], "total": 788}}
        },
        "metrics": {"average_of_versions": 0.48, "versions": 5, "text_only": None},
    }
    return {
        "benchmark": "mathvista", "protocol": "official", "protocols": {"official": own},
        "samples": None, "flags": [], "settings": {**SETTINGS, **settings},
    }  # fmt: skip


def test_the_difference_is_in_points_and_the_interval_is_the_results() -> None:
    (row,) = compare_with_published(summary(), [published()]).rows
    assert row.number == pytest.approx(65.0)
    assert row.difference == pytest.approx(-3.2)
    assert row.interval == pytest.approx((62.0, 68.0))
    assert (row.n, row.inside) == (1000, False)


@pytest.mark.parametrize(("number", "inside"), [(62.0, True), (68.0, True), (68.2, False), (61.9, False)])
def test_a_published_number_lies_in_the_interval_or_not(number: float, inside: bool) -> None:
    (row,) = compare_with_published(summary(), [published(number=number)]).rows
    assert row.inside is inside


def test_every_protocol_of_the_result_is_compared() -> None:
    one = summary()
    one["protocols"]["verifier"] = {"overall": {"accuracy": 0.7, "interval": [0.6, 0.8], "total": 1000}}
    rows = compare_with_published(one, [published()]).rows
    assert [(row.protocol, row.inside) for row in rows] == [("official", False), ("verifier", True)]


def test_numbers_of_other_models_and_benchmarks_are_not_compared() -> None:
    others = [published(model="Qwen2.5-VL-3B"), published(benchmark="mathvision")]
    assert compare_with_published(summary(), [published(number=1.0), *others]).rows[0].published.number == 1.0
    assert len(compare_with_published(summary(), [published(), *others]).rows) == 1


def test_a_number_of_a_group_is_compared_with_that_group() -> None:
    (row,) = compare_with_published(
        summary(), [published(value="groups.problem version.Vision Only", number=41.1)]
    ).rows
    assert (row.number, row.n, row.inside) == (pytest.approx(40.0), 788, True)


def test_a_metric_has_no_interval() -> None:
    (row,) = compare_with_published(summary(), [published(value="metrics.average_of_versions")]).rows
    assert (row.number, row.interval, row.inside) == (pytest.approx(48.0), None, None)


@pytest.mark.parametrize("value", ["groups.level.9", "metrics.absent", "metrics.text_only", "metrics"])
def test_a_number_that_the_result_lacks_is_not_compared(value: str) -> None:
    (row,) = compare_with_published(summary(), [published(value=value)]).rows
    assert (row.number, row.difference, row.inside) == (None, None, None)


def test_where_the_source_does_not_say_which_number_the_results_are_listed() -> None:
    (row,) = compare_with_published(summary(), [published(value=None)]).rows
    assert row.number is None
    assert row.others == pytest.approx({"accuracy": 65.0, "average_of_versions": 48.0})


def test_a_result_without_a_score_has_no_difference() -> None:
    (row,) = compare_with_published(summary(None), [published()]).rows
    assert (row.number, row.inside) == (None, None)


def test_stated_settings_that_differ_are_named_with_both_values() -> None:
    behind = PublishedSettings(min_pixels=200704, max_pixels=1003520, max_new_tokens=4096, temperature=0.6)
    assert settings_differ(published(settings=behind), SETTINGS) == [
        "min_pixels: 200,704 there, the processor's own here",
        "max_new_tokens: 4,096 there, 2,048 here",
        "temperature: 0.6 there, 0 here",
    ]


def test_settings_that_the_source_does_not_state_are_named_and_not_compared() -> None:
    (row,) = compare_with_published(summary(), [published(settings=PublishedSettings(temperature=0.0))]).rows
    assert row.differs == []
    assert row.unstated == ["min_pixels", "max_pixels", "max_new_tokens", "top_p", "markers"]


def test_a_prompt_that_asks_for_less_is_a_difference() -> None:
    behind = published(settings=PublishedSettings(markers=("\\boxed", "<think>", "<answer>")))
    assert settings_differ(behind, SETTINGS) == ["prompt: it asks for <think> and <answer> there, not here"]
    asked = {**SETTINGS, "system_prompt": "<think> first, then <answer>"}
    assert settings_differ(behind, asked) == []


def test_responses_without_stored_settings_cannot_be_compared() -> None:
    behind = published(settings=PublishedSettings(temperature=0.0))
    assert settings_differ(behind, {"predictions": "x.jsonl"}) == [UNKNOWN]
    assert settings_differ(published(), {"predictions": "x.jsonl"}) == []


@pytest.mark.parametrize(
    ("settings", "n", "line"),
    [
        ({"limit": 100}, 100, "questions: only the first 100 here"),
        ({"text_only": True}, 1000, "images: left out here"),
        ({"shots": 2}, 1000, "worked examples: 2 before each question here"),
        ({"force_answer": "ours"}, 1000, "responses that were cut off: their answer is forced here"),
        ({}, 300, "questions: 1,000 there, 300 here"),
        ({"split": "test"}, 1000, "split: testmini there, test here"),
    ],
)
def test_other_questions_are_a_difference(settings: dict[str, Any], n: int, line: str) -> None:
    (row,) = compare_with_published(summary(n=n, **settings), [published(n=1000)]).rows
    assert row.differs == [line]


@pytest.mark.parametrize(("there", "here"), [("mini", "testmini"), ("full", "test"), ("val", "validation")])
def test_two_names_of_a_split_are_no_difference(there: str, here: str) -> None:
    (row,) = compare_with_published(summary(split=here), [published(split=there)]).rows
    assert row.differs == []


def test_several_samples_are_a_difference() -> None:
    one = {**summary(), "samples": {"k": 8}}
    (row,) = compare_with_published(one, [published()]).rows
    assert row.differs == ["samples: the mean of 8 here"]


def test_a_control_is_compared_with_nothing() -> None:
    assert compare_with_published(summary(control="blank"), [published()]).rows == []


def test_a_named_model_goes_before_the_stored_one() -> None:
    tables = [published(), published(model="InternVL3-8B", number=71.6)]
    (row,) = compare_with_published(summary(), tables, "OpenGVLab/InternVL3-8B").rows
    assert row.published.number == 71.6
    assert compare_with_published(summary(), tables, "nobody").found is None


def test_the_lines_of_a_run_have_the_range_and_the_settings_that_differ() -> None:
    lines = reference_lines(summary())
    numbers = [
        one.number
        for one in load_published()
        if one.model == "Qwen2.5-VL-7B" and one.benchmark == "mathvista"
    ]
    assert lines[0].startswith(
        f"published for Qwen2.5-VL-7B on mathvista: {min(numbers)} to {max(numbers)} ({len(numbers)} sources"
    )
    assert "here 65.0 (official, 95 % interval 62.0 to 68.0, which holds 2 of 8)" in lines[0]
    (noisy,) = lines[1:]
    assert "67.5 (Liu et al. 2025, arXiv 2504.13055" in noisy
    assert "max_pixels: 1,000,000 there, 1,003,520 here" in noisy


def test_the_lines_say_once_that_settings_are_not_stored() -> None:
    one = summary()
    one["settings"] = {"predictions": "Qwen2.5-VL-7B-Instruct_MathVista.xlsx"}
    first, second = reference_lines(one)
    assert first.startswith("published for Qwen2.5-VL-7B")
    assert second == f"{UNKNOWN}, so they cannot be compared with those behind published numbers"


@pytest.mark.parametrize("settings", [{"model": "runs/mine/final"}, {"control": "blank"}])
def test_without_published_numbers_there_is_nothing_to_say(settings: dict[str, Any]) -> None:
    assert reference_lines(summary(**settings)) == []


def test_a_summary_without_settings_has_nothing_to_say() -> None:
    one = summary()
    del one["settings"]
    assert reference_lines(one) == []


def test_the_usual_split_is_compared_too() -> None:
    one = {**summary(), "benchmark": "docvqa"}
    (row,) = compare_with_published(one, [published(benchmark="docvqa", split="test")]).rows
    assert "split: test there, validation here" in row.differs
    (row,) = compare_with_published(one, [published(benchmark="docvqa", split="val")]).rows
    assert not [line for line in row.differs if "split" in line]


@pytest.mark.parametrize(
    ("benchmark", "split", "name"),
    [("mathverse", "Vision Only", "mathverse_vision_only"), ("megabench", "core", "mega_bench_core")],
)
def test_a_part_that_is_a_benchmark_of_its_own_has_the_parts_numbers(
    benchmark: str, split: str, name: str
) -> None:
    one = {**summary(), "benchmark": name}
    (row,) = compare_with_published(one, [published(benchmark=benchmark, split=split)]).rows
    assert not [line for line in row.differs if "split" in line]
    assert not compare_with_published(one, [published(benchmark=benchmark, split=None)]).rows
