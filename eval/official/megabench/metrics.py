"""Metrics of MEGA-Bench that are rules: texts, numbers, sets, sequences, mappings, boxes and points.

Each takes a field of the response and the gold value, and returns a score from 0 to 1; None leaves the field
out. Source: ``megabench/metrics/scoring`` of github.com/TIGER-AI-Lab/MEGA-Bench. Differences from that code:
accents are removed by Unicode's decomposition, there by unidecode; numbers and formulas are read by this
project's parser, there by ``eval`` and sympy; lists within a JSON object are read, there some metrics take
them as empty.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rapidfuzz.distance import DamerauLevenshtein

from eval.official.megabench.values import (
    as_boxes,
    as_lines,
    as_list,
    as_lower_set,
    as_mapping,
    as_marked_boxes,
    as_number,
    as_point,
    as_set,
    literal,
    lowered,
)
from rewards import equivalent
from rewards.extract.marked import boxed
from rewards.math.bounds import Unreadable
from rewards.rules.numeric import read_number

_LETTER = re.compile(r"^\(?([A-Za-z])\)?(?:\s*\.\s*|\.)?(.*)")
_ASSIGNED = re.compile(r"(?:=|≈|\\approx)\s*(.+)")
_NEAR = 0.9


def exact(answer: Any, gold: Any) -> float:
    """Compare texts; if the gold one is a letter, only the letter with which an answer begins counts."""
    text, wanted = str(answer), str(gold)
    if len(wanted) == 1 and wanted.isalpha() and len(text) > 1:
        begun = _LETTER.match(text)
        text = begun[1] if begun else text
    return float(text == wanted)


def _exact_any_case(answer: Any, gold: Any) -> float:
    return exact(str(answer).lower(), str(gold).lower())


def _bare(text: Any) -> str:
    return re.sub(r"[ \-\n\t.]", "", str(text)).lower()


def simple(answer: Any, gold: Any) -> float:
    """Compare texts without case, spaces, hyphens and stops."""
    return exact(_bare(answer), _bare(gold))


def _near(answer: Any, gold: Any) -> float:
    if not isinstance(answer, str) or not isinstance(gold, str):
        return 0.0
    return DamerauLevenshtein.normalized_similarity(_plain(answer), _plain(gold), score_cutoff=_NEAR)


def _plain(text: str) -> str:
    words = " ".join(word for word in text.split(" ") if word.lower() not in ("the", "a"))
    return "".join(
        one for one in unicodedata.normalize("NFKD", words) if not unicodedata.combining(one)
    ).lower()


def _similar(answer: Any, gold: Any) -> float:
    return DamerauLevenshtein.normalized_similarity(str(answer)[:2_000], str(gold)[:2_000])


def _one_of(answer: Any, gold: Any) -> float:
    return float(any(simple(answer, one) for one in as_list(str(gold).replace("，", ","))))


def _relative(answer: Any, gold: Any) -> float:
    wanted = as_number(gold)
    return max(0.0, 1 - abs((as_number(answer) - wanted) / wanted))


def _positive(answer: Any, gold: Any) -> float | None:
    """Compare whole numbers; a field that is positive on neither side does not count."""
    value, wanted = literal(answer), literal(gold)
    if not isinstance(value, int):
        return 0.0
    return None if value <= 0 and wanted <= 0 else float(value == wanted)


def _normalised_rmse(answer: Any, gold: Any) -> float:
    return 1 - min(abs(as_number(answer) - as_number(gold)), 0.1) / 0.1


def _angles(answer: Any, gold: Any) -> float:
    values, wanted = as_list(answer), as_list(gold)
    if len(values) != len(wanted):
        return 0.0
    off = sum(abs(float(a) - float(b)) for a, b in zip(values, wanted, strict=True)) / len(wanted)
    return 1 - min(off, 10.0) / 10


def _numerical(answer: Any, gold: Any) -> float:
    """Compare numbers within 1 % of the gold one, what cannot be read as such by ``simple``."""
    texts = [_assigned(str(value)) for value in (answer, gold)]
    try:
        (value, _), (wanted, _) = (read_number(text, alone=True) for text in texts)
        return float(abs(value - wanted) <= abs(wanted) / 100)
    except (Unreadable, OverflowError):
        return simple(*texts)


def _assigned(text: str) -> str:
    found = _ASSIGNED.search(re.sub(r"\\[()\[\]]", "", text))
    return found[1].strip() if found else re.sub(r"\\[()\[\]]", "", text)


def _boxed(answer: Any, gold: Any) -> float:
    inside = [(box.text if (box := boxed(str(value))) else str(value)) for value in (answer, gold)]
    return _numerical(*inside)


def _formula(answer: Any, gold: Any) -> float:
    return float(equivalent(str(answer), str(gold))) or simple(answer, gold)


def _jaccard(answer: set[Any], gold: set[Any]) -> float:
    return len(answer & gold) / len(answer | gold) if answer | gold else 1.0


def _precision(answer: set[Any], gold: set[Any]) -> float:
    return len(answer & gold) / len(answer) if answer else 1.0


def _moves(value: Any) -> set[str]:
    return {str(move).removesuffix("!").removesuffix("#") for move in as_list(value)}


def _prefix(answer: Any, gold: Any) -> float:
    wanted = as_list(gold)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(as_list(answer), wanted, strict=False))
    return len(list(same)) / len(wanted)


def _sequence_share(answer: Any, gold: Any) -> float:
    values, wanted = as_list(answer), as_list(gold)
    if len(values) != len(wanted):
        return 0.0
    return sum(lowered(a) == lowered(b) for a, b in zip(values, wanted, strict=True)) / len(wanted)


def _over_keys(compare: Callable[[Any, Any], float], answer: Any, gold: Any) -> float:
    """Return the mean score of the values over the keys of both mappings."""
    values, wanted = as_mapping(answer), as_mapping(gold)
    keys = {**wanted, **values}
    return sum(compare(values.get(key, []), wanted.get(key, [])) for key in keys) / len(keys)


def _over_gold_keys(answer: Any, gold: Any) -> float:
    values, wanted = as_mapping(answer), as_mapping(gold)
    return sum(exact(values.get(key), value) for key, value in wanted.items()) / len(wanted)


def _share_of_own_keys(answer: Any, gold: Any) -> float:
    values, wanted = as_mapping(answer), as_mapping(gold)
    right = sum(exact(value, wanted[key]) for key, value in values.items() if key in wanted)
    return right / len(values) if values else 0.0


def _overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Return intersection over union of two boxes (x1, y1, x2, y2)."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(0.0, width) * max(0.0, height)
    union = sum((one[2] - one[0]) * (one[3] - one[1]) for one in (box, other)) - common
    return common / union if union > 0 else 0.0


def _best_overlaps(boxes: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]]) -> float:
    """Return the mean, over the answer's boxes, of the overlap with the nearest gold box."""
    return sum(max((_overlap(box, one) for one in wanted), default=0.0) for box in boxes) / len(boxes)


def _paired_overlaps(answer: Any, gold: Any) -> float:
    boxes, wanted = as_boxes(answer), as_boxes(gold)
    if len(boxes) != len(wanted):
        return 0.0
    return sum(_overlap(a, b) for a, b in zip(boxes, wanted, strict=True)) / len(wanted)


def _distance(answer: Any, gold: Any) -> float:
    point, wanted = as_point(answer), as_point(gold)
    if not all(0 <= one <= 1 for one in (*point, *wanted)):
        return 0.0
    return max(0.0, 1 - math.dist(point, wanted))


def _inside(answer: Any, context: Any) -> float:
    x, y = as_point(answer)
    boxes = [as_boxes(box)[0] for box in context["bounding_boxes"]]
    return float(any(box[0] <= x <= box[2] and box[1] <= y <= box[3] for box in boxes))


def _key_points(answer: Any, gold: Any) -> float:
    """Return the mean of exp(−10 d / √2) over paired points; d is their distance."""
    points, wanted = literal(answer), literal(gold)
    if len(points) != len(wanted):
        return 0.0
    distances = [math.dist(a, b) for a, b in zip(points, wanted, strict=True)]
    return sum(math.exp(-10 * distance / math.sqrt(2)) for distance in distances) / len(distances)


Metric = Callable[[Any, Any], "float | None"]
METRICS: Mapping[str, Metric] = {
    "exact_str_match": exact,
    "exact_str_match_case_insensitive": _exact_any_case,
    "simple_str_match": simple,
    "near_str_match": _near,
    "normalized_similarity_damerau_levenshtein": _similar,
    "multi_ref_phrase": _one_of,
    "number_rel_diff_ratio": _relative,
    "positive_int_match": _positive,
    "normalized_rmse": _normalised_rmse,
    "angle_seq_float_rmse": _angles,
    "general_single_numerical_match": _numerical,
    "boxed_single_numerical_match": _boxed,
    "latex_expr_equality": _formula,
    "set_equality": lambda answer, gold: float(as_set(answer) == as_set(gold)),
    "set_equality_case_insensitive": lambda answer, gold: float(as_lower_set(answer) == as_lower_set(gold)),
    "str_set_equality_comma": lambda answer, gold: float(as_lower_set(answer) == as_lower_set(gold)),
    "str_set_equality_line_break": lambda answer, gold: float(as_lines(answer) == as_lines(gold)),
    "set_precision": lambda answer, gold: _precision(as_set(answer), as_set(gold)),
    "jaccard_index": lambda answer, gold: _jaccard(as_set(answer), as_set(gold)),
    "jaccard_index_case_insensitive": lambda answer, gold: _jaccard(as_lower_set(answer), as_lower_set(gold)),
    "chess_move_list_jaccard_index": lambda answer, gold: _jaccard(_moves(answer), _moves(gold)),
    "sequence_equality": lambda answer, gold: float(as_list(answer) == as_list(gold)),
    "sequence_equality_case_insensitive": lambda answer, gold: float(
        list(map(lowered, as_list(answer))) == list(map(lowered, as_list(gold)))
    ),
    "sequence_accuracy_case_insensitive": _sequence_share,
    "longest_common_list_prefix_ratio": _prefix,
    "dict_equality": lambda answer, gold: float(as_mapping(answer) == as_mapping(gold)),
    "dict_precision": _share_of_own_keys,
    "dict_exact_str_match_agg_recall": _over_gold_keys,
    "dict_jaccard_agg_jaccard": lambda answer, gold: _over_keys(
        lambda a, b: _jaccard(as_set(a), as_set(b)), answer, gold
    ),
    "dict_set_equality_agg_jaccard": lambda answer, gold: _over_keys(
        lambda a, b: float(as_set(a) == as_set(b)), answer, gold
    ),
    "dict_nbbox_iou_tuple_agg_jaccard": lambda answer, gold: _over_keys(
        lambda a, b: _best_overlaps(as_boxes(a), as_boxes(b)) if a and b else 0.0, answer, gold
    ),
    "nbbox_iou_tuple": lambda answer, gold: _best_overlaps(as_boxes(answer), as_boxes(gold)),
    "nbbox_iou_single": lambda answer, gold: _overlap(literal(answer), literal(gold)),
    "nbbox_iou_sequence": _paired_overlaps,
    "xml_nbbox_iou_single": lambda answer, gold: _best_overlaps(
        as_marked_boxes(answer), as_marked_boxes(gold)
    ),
    "xml_norm_point_distance": _distance,
    "xml_norm_point_in_bbox": _inside,
    "sequence_coords_similarity": _key_points,
}
