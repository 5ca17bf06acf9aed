"""Find the boxes in a text, in the forms that vision-language models write.

``[x1, y1, x2, y2]`` in any brackets, also inside JSON (``{"bbox_2d": […]}``, lists of lists); two points
``(x1,y1),(x2,y2)``, also inside ``<box>`` or ``<|box_start|>``; ``<box>x1 y1 x2 y2</box>``; ``x1: …, y1: …``
by name; four bare numbers if that is all there is.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Any

from rewards.bounds import Unreadable
from rewards.overlap import Box

MAX_BOXES = 50
_NUMBER = r"([-+]?(?:[0-9]{1,7}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}))"
_GAP = r"\s{0,20}"
_COMMA = r"(?:\s{0,20},\s{0,20}|\s{1,20})"
_FOUR = _COMMA.join([_NUMBER] * 4)
_POINT = rf"[\[(]{_GAP}{_NUMBER}{_COMMA}{_NUMBER}{_GAP}[\])]"


def _named(*spellings: str) -> str:
    return rf"""["']?(?:{"|".join(spellings)})["']?{_GAP}[:=]{_GAP}{_NUMBER}"""


_BY_NAME = _COMMA.join(
    _named(*names) for names in (("x1", "x_?min"), ("y1", "y_?min"), ("x2", "x_?max"), ("y2", "y_?max"))
)
_BOX = re.compile(
    rf"[\[(]{_GAP}{_FOUR}{_GAP}[\])]|{_POINT}{_GAP},?{_GAP}{_POINT}|<b?box>{_GAP}{_FOUR}{_GAP}</b?box>|{_BY_NAME}",
    re.IGNORECASE,
)
_BARE = re.compile(rf"{_GAP}{_FOUR}{_GAP}")


def _box(numbers: list[str]) -> Box:
    x1, y1, x2, y2 = map(Fraction, numbers)
    if x2 <= x1 or y2 <= y1:
        raise Unreadable(f"the box [{', '.join(numbers)}] is not left, top, right, bottom")
    return x1, y1, x2, y2


def read_boxes(value: Any) -> list[Box]:
    """Return the boxes of a text, or of lists and mappings as JSON gives them, in their order.

    Raises ``Unreadable`` if there is none, if there are more than 50, or if one has no area.
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    matches = list(_BOX.finditer(text)) or [match for match in [_BARE.fullmatch(text)] if match]
    if not matches:
        raise Unreadable(f"there is no box in {text.strip()[:60]!r}")
    if len(matches) > MAX_BOXES:
        raise Unreadable(f"{len(matches)} boxes, at most {MAX_BOXES} are read")
    return [_box([group for group in match.groups() if group is not None]) for match in matches]
