"""Intersection over union of boxes and spans, exactly: several on a side count as their union."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

# Left, top, right, bottom.
Box = tuple[Fraction, Fraction, Fraction, Fraction]
# Start, end.
Span = tuple[Fraction, Fraction]


def covered(spans: Sequence[Span]) -> Fraction:
    """The length that the spans cover together."""
    total, reached = Fraction(0), None
    for start, end in sorted(spans):
        if reached is None or start > reached:
            total, reached = total + end - start, end
        elif end > reached:
            total, reached = total + end - reached, end
    return total


def _ratio(both: Fraction, either: Fraction) -> Fraction:
    return both / either if either else Fraction(0)


def span_iou(a: Sequence[Span], b: Sequence[Span]) -> Fraction:
    """Intersection over union of two unions of spans; 0 if both are empty."""
    either = covered([*a, *b])
    return _ratio(covered(a) + covered(b) - either, either)


def _rows(boxes: Sequence[Box], left: Fraction, right: Fraction) -> list[Span]:
    return [(top, bottom) for x1, top, x2, bottom in boxes if x1 <= left and right <= x2]


def box_iou(a: Sequence[Box], b: Sequence[Box]) -> Fraction:
    """Intersection over union of two unions of boxes; 0 if both are empty.

    Between two neighbouring vertical edges nothing changes along x, so that areas are sums over such strips.
    """
    edges = sorted({x for box in (*a, *b) for x in (box[0], box[2])})
    both = either = Fraction(0)
    for left, right in pairwise(edges):
        rows = _rows(a, left, right), _rows(b, left, right)
        together = covered([*rows[0], *rows[1]])
        either += together * (right - left)
        both += (covered(rows[0]) + covered(rows[1]) - together) * (right - left)
    return _ratio(both, either)
