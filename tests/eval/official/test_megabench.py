"""MEGA-Bench: parsing of responses, aggregation of fields, and rows that have no score."""

from __future__ import annotations

from typing import Any

import pytest

from eval.official.megabench import grade, parse
from rewards import Status


def row(answer: dict[str, str], metric: str, parsing: str = "json", **aggregation: Any) -> dict[str, Any]:
    return {
        "answer": str(answer),
        "metric_info": {
            "field_score_function": dict.fromkeys(answer, metric),
            "aggregation": {"function": "mean", "field_weights": dict.fromkeys(answer, 1), **aggregation},
            "response_parse_function": parsing,
        },
        "eval_context": "{}",
    }


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("I reason.\nAnswer: B", "B"),
        ("Answer: A\nno\nAnswer: B", "B"),
        ("**Answer: B**", "B"),
        ("answer: B", "B"),
        ("Answer: ```\nB\n```", "B"),
        ("Answer: B\n\nThis is because …", "B"),
        ("Answer: 'B'", "B"),
        ("Answer: [1, 2]", "[1, 2]"),
        ("B", "B"),
        ("", ""),
    ],
)
def test_one_field_is_the_text_after_the_last_answer(response: str, answer: str) -> None:
    assert parse(response, {"x": "B"}, "answer_string") == {"x": answer}


@pytest.mark.parametrize(
    ("response", "fields"),
    [
        ('{"a": "1", "b": "2"}', {"a": "1", "b": "2"}),
        ('```json\n{"a": "1"}\n```', {"a": "1"}),
        ('Answer: {"a": "1"}\nHope it helps', {"a": "1"}),
        # The rest of the line after "Answer:" is read, so an object that begins below it is lost.
        ('Answer: ```json\n{"a": "1"}\n```', dict.fromkeys("ab", 'Answer: ```json\n{"a": "1"}\n```')),
        ("{'a': 1} and then {'a': 2}", {"a": 2}),
        ('{"a": {"deep": [1]}}', {"a": {"deep": [1]}}),
        ("none", {"a": "none", "b": "none"}),
        ("[1, 2]", {"a": "[1, 2]", "b": "[1, 2]"}),
    ],
)
def test_several_fields_are_the_last_object(response: str, fields: dict[str, Any]) -> None:
    assert parse(response, {"a": "1", "b": "2", "##note": "x"}, "json") == fields


def test_fields_are_weighted() -> None:
    weighted = row({"a": "1", "b": "2"}, "exact_str_match", field_weights={"a": 3, "b": 1})
    verdict = grade('{"a": "1", "b": "3"}', weighted)
    assert (verdict.score, verdict.status) == (0.75, Status.PARTIAL)


def test_the_minimum_of_the_fields_can_count() -> None:
    assert (
        grade('{"a": "1", "b": "3"}', row({"a": "1", "b": "2"}, "exact_str_match", function="min")).score == 0
    )


def test_a_field_that_does_not_count_is_left_out() -> None:
    counted = row({"a": "0", "b": "2"}, "positive_int_match")
    assert grade('{"a": "0", "b": "2"}', counted).score == 1
    assert grade('{"a": "1", "b": "2"}', counted).score == 0.5


def test_an_answer_of_an_unexpected_form_scores_zero() -> None:
    assert grade('{"a": "many"}', row({"a": "3"}, "number_rel_diff_ratio")).score == 0


@pytest.mark.parametrize("metric", ["program_judge", "gpt_4o_as_judge", "geo_proximity_location_dict"])
def test_a_metric_that_is_no_rule_gives_no_score(metric: str) -> None:
    verdict = grade('{"a": "1"}', row({"a": "1"}, metric))
    assert (verdict.score, verdict.status) == (None, Status.NOT_JUDGED)


def test_a_point_is_compared_with_the_rows_context() -> None:
    rules = row({"a": ""}, "xml_norm_point_in_bbox")
    rules["eval_context"] = {"bounding_boxes": ["(0.1, 0.1, 0.3, 0.3)"]}
    points = ("<point>0.2, 0.2</point>", "<point>0.4, 0.2</point>", "left")
    assert [grade(f'{{"a": "{point}"}}', rules).score for point in points] == [1, 0, 0]


def test_a_damaged_row_has_no_score() -> None:
    assert grade("1", {"answer": "1", "metric_info": "{}"}).status is Status.UNPARSABLE_GOLD
