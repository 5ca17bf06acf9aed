"""MEGA-Bench as a declared benchmark, on invented rows in its published layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewards import Status
from tests.fakes.declared import loaded, pairs, scores


def row(
    number: int, task: str, answer: dict[str, str], metric: str, parse: str, **media: str
) -> dict[str, str]:
    rules = {
        "field_score_function": dict.fromkeys(answer, metric),
        "aggregation": {"function": "mean", "field_weights": dict.fromkeys(answer, 1)},
        "response_parse_function": parse,
    }
    return {
        "id": str(number),
        "task_name": task,
        "task_description": "Read the sign in <image>.",
        "global_media": "[]",
        "example_text": "Example Response: Answer: stop",
        "example_media": "['./data/example.png']",
        "query_text": "And in <image>?",
        "query_media": "['./data/query.png']",
        "answer": str(answer),
        "metric_info": str(rules),
        "eval_context": "{}",
        **media,
    }


ROWS = [
    row(1, "signs", {"Answer": "No Entry"}, "simple_str_match", "answer_string"),
    row(2, "signs", {"Answer": "Stop"}, "simple_str_match", "answer_string"),
    row(3, "tables", {"name": "Ann", "age": "12"}, "exact_str_match", "json"),
    row(4, "videos", {"Answer": "1"}, "exact_str_match", "answer_string", query_media="['./data/clip.mp4']"),
    row(5, "programs", {"code": "1"}, "program_judge", "json"),
]


@pytest.mark.parametrize("name", ["mega_bench_core", "mega_bench_core_si"])
def test_mega_bench_leaves_rows_with_videos_out(tmp_path: Path, name: str) -> None:
    benchmark, examples = loaded(name, tmp_path, "test.json", ROWS)
    assert [one.id for one in examples] == ["1", "2", "3", "5"]
    assert [image.origin for image in examples[0].images] == ["./data/example.png", "./data/query.png"]
    assert benchmark.prompt(examples[0]) == (
        "Read the sign in <image>.\nExample Response: Answer: stop\nAnd in <image>?"
    )


def test_mega_bench_scores_each_field_by_its_metric(tmp_path: Path) -> None:
    benchmark, examples = loaded("mega_bench_core", tmp_path, "test.json", ROWS)
    assert scores(benchmark, examples[0], ["I read.\nAnswer: no-entry", "Answer: Stop", ""]) == [1, 0, 0]
    assert scores(benchmark, examples[2], ['Answer: {"name": "Ann", "age": "13"}', "Ann"]) == [0.5, 0.5]


def test_mega_benchs_metrics_that_are_no_rules_give_no_score(tmp_path: Path) -> None:
    benchmark, examples = loaded("mega_bench_core", tmp_path, "test.json", ROWS)
    ((_, verdict),) = pairs(benchmark, examples[3:], ['{"code": "1"}'])
    assert (verdict.score, verdict.status) == (None, Status.NOT_JUDGED)
    assert verdict.reason == "no rule for the metric program_judge"


def test_mega_bench_averages_over_tasks(tmp_path: Path) -> None:
    benchmark, examples = loaded("mega_bench_core", tmp_path, "test.json", ROWS)
    scored = pairs(
        benchmark, examples, ["Answer: No Entry", "Answer: Go", '{"name": "Ann", "age": "12"}', ""]
    )
    assert benchmark.metrics is not None
    # signs: one of two; tables: all; programs have no score and are left out.
    assert benchmark.metrics(scored) == {"mean_of_tasks": 0.75, "mean_of_tasks_groups": 2}
