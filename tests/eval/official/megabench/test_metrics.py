"""MEGA-Bench's metrics, each on values computed by hand."""

from __future__ import annotations

import math

import pytest

from eval.official.megabench.metrics import METRICS


@pytest.mark.parametrize(
    ("metric", "answer", "gold", "score"),
    [
        ("exact_str_match", "(B) cat", "B", 1),
        ("exact_str_match", "Cat", "cat", 0),
        ("exact_str_match_case_insensitive", "Cat", "cat", 1),
        ("simple_str_match", "No-Entry.", "no entry", 1),
        ("near_str_match", "the café", "a cafe", 1),
        ("near_str_match", "tea", "cafe", 0),
        ("normalized_similarity_damerau_levenshtein", "abdc", "abcd", 0.75),
        ("multi_ref_phrase", "grey", "['gray', 'grey']", 1),
        ("number_rel_diff_ratio", "9", "10", 0.9),
        ("number_rel_diff_ratio", "25", "10", 0),
        ("positive_int_match", "3", "3", 1),
        ("positive_int_match", "0", "0", None),
        ("normalized_rmse", "0.55", "0.5", 0.5),
        ("angle_seq_float_rmse", "[10, 20]", "[12, 18]", 0.8),
        ("general_single_numerical_match", "x = 101", "100", 1),
        ("general_single_numerical_match", "102", "100", 0),
        ("general_single_numerical_match", "red", "Red", 1),
        ("boxed_single_numerical_match", r"so \boxed{\frac{1}{2}}", "0.5", 1),
        ("latex_expr_equality", r"\frac{2}{4}", r"\frac{1}{2}", 1),
        ("set_equality", "[2, 1]", "[1, 2]", 1),
        ("set_equality_case_insensitive", "['A', 'b']", "['a', 'B']", 1),
        ("str_set_equality_comma", "b, A", "a, b", 1),
        ("str_set_equality_line_break", "b\nA", "a\nb", 1),
        ("set_precision", "[1, 2, 3, 4]", "[1, 2]", 0.5),
        ("jaccard_index", "[1, 2]", "[2, 3]", 1 / 3),
        ("jaccard_index_case_insensitive", "['A']", "['a', 'b']", 0.5),
        ("chess_move_list_jaccard_index", "e4!, Nf3#", "e4, Nf3", 1),
        ("sequence_equality", "[1, 2]", "[2, 1]", 0),
        ("sequence_equality_case_insensitive", "['A', 'b']", "['a', 'B']", 1),
        ("sequence_accuracy_case_insensitive", "['a', 'x']", "['A', 'b']", 0.5),
        ("longest_common_list_prefix_ratio", "[1, 2, 9]", "[1, 2, 3, 4]", 0.5),
        ("dict_equality", "{'a': 1}", "{'a': 1}", 1),
        ("dict_precision", "{'a': '1', 'c': '3'}", "{'a': '1', 'b': '2'}", 0.5),
        ("dict_exact_str_match_agg_recall", "{'a': '1'}", "{'a': '1', 'b': '2'}", 0.5),
        ("dict_jaccard_agg_jaccard", "{'a': [1, 2]}", "{'a': [1], 'b': [3]}", 0.25),
        ("dict_set_equality_agg_jaccard", "{'a': [2, 1], 'b': [1]}", "{'a': [1, 2], 'b': [3]}", 0.5),
        ("dict_nbbox_iou_tuple_agg_jaccard", "{'a': [[0, 0, 1, 1]]}", "{'a': [[0, 0, 1, 2]]}", 0.5),
        ("nbbox_iou_tuple", "[[0, 0, 1, 1]]", "[[0, 0, 1, 2], [5, 5, 6, 6]]", 0.5),
        ("nbbox_iou_single", "(0, 0, 1, 1)", "(0, 0, 1, 2)", 0.5),
        ("nbbox_iou_sequence", "[[0,0,1,1],[0,0,1,1]]", "[[0,0,1,1],[0,0,1,2]]", 0.75),
        ("xml_nbbox_iou_single", "<box>0,0,1,1</box>", "<box>0,0,1,2</box>", 0.5),
        ("xml_norm_point_distance", "<point>0.1, 0.2</point>", "<point>0.4, 0.6</point>", 0.5),
        ("xml_norm_point_distance", "<point>2, 0</point>", "<point>0, 0</point>", 0),
        (
            "sequence_coords_similarity",
            "[(0, 0), (0, 0.1)]",
            "[(0, 0), (0, 0)]",
            (1 + math.exp(-1 / math.sqrt(2))) / 2,
        ),
    ],
)
def test_a_metric_gives_its_value(metric: str, answer: str, gold: str, score: float | None) -> None:
    found = METRICS[metric](answer, gold)
    assert found == (None if score is None else pytest.approx(score))


def test_the_metric_of_a_point_in_a_box_reads_the_context() -> None:
    inside = METRICS["xml_norm_point_in_bbox"]
    assert inside("<point>0.5, 0.5</point>", {"bounding_boxes": ["(0, 0, 1, 1)"]}) == 1
