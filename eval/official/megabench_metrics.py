"""Metrics of MEGA-Bench that are rules: texts, numbers, sets, sequences, mappings, boxes and points.

Each takes a field of the response and the gold value, and returns a score from 0 to 1; None leaves the field
out. Source: ``megabench/metrics/scoring`` of github.com/TIGER-AI-Lab/MEGA-Bench. Differences from that code:
accents are removed by Unicode's decomposition, there by unidecode; numbers and formulas are read by this
project's parser, there by ``eval`` and sympy; lists within a JSON object are read, there some metrics take
them as empty.
"""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rapidfuzz.distance import DamerauLevenshtein

from rewards import equivalent
from rewards.extract.marked import boxed
from rewards.math.bounds import Unreadable
from rewards.rules.numeric import read_number

_LETTER = re.compile(r"^\(?([A-Za-z])\)?(?:\s*\.\s*|\.)?(.*)")
_POINT, _BOX = re.compile(r"<point>(.*?)</point>"), re.compile(r"<box>(.*?)</box>")
_ASSIGNED = re.compile(r"(?:=|≈|\\approx)\s*(.+)")
_MAX_CHARS, _MAX_NESTING = 20_000, 60
_MAX_SPANS = 50
_CLOSING = {"{": "}", "[": "]"}
_BRACKETS = {**_CLOSING, "(": ")"}
_NEAR = 0.9


def literal(value: Any) -> Any:
    """Return the value that a text writes as Python or JSON; the text itself if it writes none."""
    if not isinstance(value, str) or len(value) > _MAX_CHARS or _nesting(value) > _MAX_NESTING:
        return value
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(value.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return value


def _nesting(text: str) -> int:
    """Return the largest number of brackets that are open at once."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def structure(text: str) -> Any:
    """Return the last list or mapping that a text writes between matching brackets, None if there is none."""
    spans = sorted(_bracketed(text[-_MAX_CHARS:]), key=lambda span: (-span[1], span[0]))
    for start, end in spans[:_MAX_SPANS]:
        value = literal(text[-_MAX_CHARS:][start:end])
        if isinstance(value, (Mapping, list)):
            return value
    return None


def _bracketed(text: str) -> list[tuple[int, int]]:
    opened: list[int] = []
    spans = []
    for place, character in enumerate(text):
        if character in _CLOSING:
            opened.append(place)
        elif opened and character == _CLOSING[text[opened[-1]]]:
            spans.append((opened.pop(), place + 1))
    return spans


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
    return float(any(simple(answer, one) for one in _list(str(gold).replace("，", ","))))


def _number(value: Any) -> float:
    found = literal(value)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ValueError(f"{value!r} is not a number")
    return float(found)


def _relative(answer: Any, gold: Any) -> float:
    wanted = _number(gold)
    return max(0.0, 1 - abs((_number(answer) - wanted) / wanted))


def _positive(answer: Any, gold: Any) -> float | None:
    """Compare whole numbers; a field that is positive on neither side does not count."""
    value, wanted = literal(answer), literal(gold)
    if not isinstance(value, int):
        return 0.0
    return None if value <= 0 and wanted <= 0 else float(value == wanted)


def _normalised_rmse(answer: Any, gold: Any) -> float:
    return 1 - min(abs(_number(answer) - _number(gold)), 0.1) / 0.1


def _angles(answer: Any, gold: Any) -> float:
    values, wanted = _list(answer), _list(gold)
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


def _list(value: Any) -> list[Any]:
    """Return a list that a value is or writes; a text without brackets is split at its commas."""
    found = literal(value)
    if isinstance(found, (list, tuple, set, frozenset)):
        return list(found)
    if not isinstance(found, str):
        return [found]
    text = found.strip(" ")
    if text[:1] in _BRACKETS:
        if not text.endswith(_BRACKETS[text[0]]):
            return []
        text = text[1:-1]
    return [one.strip() for one in text.split(",")] if text else []


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(one)) for key, one in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple, set)) else value


def _set(value: Any) -> set[Any]:
    return {_frozen(one) for one in _list(value)}


def _lower(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(re.sub(r"[\s_.\-]", "", str(one)).lower() for one in value)
    return value.lower() if isinstance(value, str) else value


def _lower_set(value: Any) -> set[Any]:
    return {_lower(_frozen(one)) for one in _list(value)}


def _lines(value: Any) -> set[str]:
    return {line.lower() for line in str(value).replace("\\n", "\n").split("\n")}


def _jaccard(answer: set[Any], gold: set[Any]) -> float:
    return len(answer & gold) / len(answer | gold) if answer | gold else 1.0


def _precision(answer: set[Any], gold: set[Any]) -> float:
    return len(answer & gold) / len(answer) if answer else 1.0


def _moves(value: Any) -> set[str]:
    return {str(move).removesuffix("!").removesuffix("#") for move in _list(value)}


def _prefix(answer: Any, gold: Any) -> float:
    wanted = _list(gold)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(_list(answer), wanted, strict=False))
    return len(list(same)) / len(wanted)


def _sequence_share(answer: Any, gold: Any) -> float:
    values, wanted = _list(answer), _list(gold)
    if len(values) != len(wanted):
        return 0.0
    return sum(_lower(a) == _lower(b) for a, b in zip(values, wanted, strict=True)) / len(wanted)


def _mapping(value: Any) -> Mapping[str, Any]:
    found = structure(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{value!r} is no mapping")
    return found


def _over_keys(compare: Callable[[Any, Any], float], answer: Any, gold: Any) -> float:
    """Return the mean score of the values over the keys of both mappings."""
    values, wanted = _mapping(answer), _mapping(gold)
    keys = {**wanted, **values}
    return sum(compare(values.get(key, []), wanted.get(key, [])) for key in keys) / len(keys)


def _over_gold_keys(answer: Any, gold: Any) -> float:
    values, wanted = _mapping(answer), _mapping(gold)
    return sum(exact(values.get(key), value) for key, value in wanted.items()) / len(wanted)


def _share_of_own_keys(answer: Any, gold: Any) -> float:
    values, wanted = _mapping(answer), _mapping(gold)
    right = sum(exact(value, wanted[key]) for key, value in values.items() if key in wanted)
    return right / len(values) if values else 0.0


def _boxes(value: Any) -> list[Sequence[float]]:
    """Return the boxes of a list of boxes, or the one box that a list of four numbers is."""
    found = literal(value)
    if len(found) == 4 and isinstance(found[0], (int, float)):
        found = [found]
    return [box for box in found if len(box) == 4 and all(isinstance(one, (int, float)) for one in box)]


def _marked_boxes(value: Any) -> list[Sequence[float]]:
    boxes = [[float(part) for part in box.split(",")] for box in _BOX.findall(value)]
    return [box for box in boxes if len(box) == 4]


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
    boxes, wanted = _boxes(answer), _boxes(gold)
    if len(boxes) != len(wanted):
        return 0.0
    return sum(_overlap(a, b) for a, b in zip(boxes, wanted, strict=True)) / len(wanted)


def _point(value: Any) -> tuple[float, float]:
    found = literal(value)
    if isinstance(found, str):
        (text,) = _POINT.findall(found)
        found = [float(part) for part in text.split(",")]
    x, y = found
    return float(x), float(y)


def _distance(answer: Any, gold: Any) -> float:
    point, wanted = _point(answer), _point(gold)
    if not all(0 <= one <= 1 for one in (*point, *wanted)):
        return 0.0
    return max(0.0, 1 - math.dist(point, wanted))


def _inside(answer: Any, context: Any) -> float:
    x, y = _point(answer)
    boxes = [_boxes(box)[0] for box in context["bounding_boxes"]]
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
    "set_equality": lambda answer, gold: float(_set(answer) == _set(gold)),
    "set_equality_case_insensitive": lambda answer, gold: float(_lower_set(answer) == _lower_set(gold)),
    "str_set_equality_comma": lambda answer, gold: float(_lower_set(answer) == _lower_set(gold)),
    "str_set_equality_line_break": lambda answer, gold: float(_lines(answer) == _lines(gold)),
    "set_precision": lambda answer, gold: _precision(_set(answer), _set(gold)),
    "jaccard_index": lambda answer, gold: _jaccard(_set(answer), _set(gold)),
    "jaccard_index_case_insensitive": lambda answer, gold: _jaccard(_lower_set(answer), _lower_set(gold)),
    "chess_move_list_jaccard_index": lambda answer, gold: _jaccard(_moves(answer), _moves(gold)),
    "sequence_equality": lambda answer, gold: float(_list(answer) == _list(gold)),
    "sequence_equality_case_insensitive": lambda answer, gold: float(
        list(map(_lower, _list(answer))) == list(map(_lower, _list(gold)))
    ),
    "sequence_accuracy_case_insensitive": _sequence_share,
    "longest_common_list_prefix_ratio": _prefix,
    "dict_equality": lambda answer, gold: float(_mapping(answer) == _mapping(gold)),
    "dict_precision": _share_of_own_keys,
    "dict_exact_str_match_agg_recall": _over_gold_keys,
    "dict_jaccard_agg_jaccard": lambda answer, gold: _over_keys(
        lambda a, b: _jaccard(_set(a), _set(b)), answer, gold
    ),
    "dict_set_equality_agg_jaccard": lambda answer, gold: _over_keys(
        lambda a, b: float(_set(a) == _set(b)), answer, gold
    ),
    "dict_nbbox_iou_tuple_agg_jaccard": lambda answer, gold: _over_keys(
        lambda a, b: _best_overlaps(_boxes(a), _boxes(b)) if a and b else 0.0, answer, gold
    ),
    "nbbox_iou_tuple": lambda answer, gold: _best_overlaps(_boxes(answer), _boxes(gold)),
    "nbbox_iou_single": lambda answer, gold: _overlap(literal(answer), literal(gold)),
    "nbbox_iou_sequence": _paired_overlaps,
    "xml_nbbox_iou_single": lambda answer, gold: _best_overlaps(_marked_boxes(answer), _marked_boxes(gold)),
    "xml_norm_point_distance": _distance,
    "xml_norm_point_in_bbox": _inside,
    "sequence_coords_similarity": _key_points,
}
