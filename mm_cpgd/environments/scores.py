"""Scores of conversations: parts of the reward for how tools were used, given turn by turn.

A score is a function of the ``Progress`` and its own options, and returns a number, a verdict, or None where
a turn gives nothing. The parts of one name are added over the turns of a conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge

from data.example import Example, ImageRef
from data.images import image_size
from mm_cpgd.environments.images import region_of
from mm_cpgd.environments.options import checked_options
from mm_cpgd.environments.registry import find_named
from mm_cpgd.errors import UserError
from rewards.math.bounds import Unreadable
from rewards.rules.grounding import Box, box_iou, read_boxes
from rewards.verdict import Status, Verdict
from rewards.verify import verify

CallStatus = Literal["ok", "malformed", "invalid", "failed", "limit"]


@dataclass(frozen=True)
class Call:
    """A tool call and what became of it.

    Attributes:
        turn: of the policy, counted from 1.
        name: of the tool, as written.
        status: "ok"; "malformed" (cannot be read); "invalid" (no such tool, or arguments that it refuses);
            "failed" (the tool raised); "limit" (not run).
        reason: why it is not "ok", in one line.
        arguments: checked, by name.
        images: that the tool returned.
    """

    turn: int
    name: str
    status: CallStatus
    reason: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[ImageRef, ...] = ()


@dataclass(frozen=True)
class Progress:
    """A conversation after a turn of the policy.

    Attributes:
        example: the row.
        completion: text of this turn.
        turn: counted from 1.
        calls: of this turn.
        before: calls of the turns before.
        done: whether the conversation has ended.
        cut: whether it has ended because of a limit.
    """

    example: Example
    completion: str
    turn: int
    calls: tuple[Call, ...]
    before: tuple[Call, ...]
    done: bool
    cut: bool


Score = Callable[[Progress], "float | Verdict | None"]


def crop_iou(progress: Progress, box: str = "box", size: str | None = None) -> Verdict | None:
    """By how much the best crop so far has become better: IoU of what it shows with the gold box.

    The sum over the turns is the IoU of the best crop, or 0 without a crop. A crop of a crop counts by the
    part of the original image that it shows.

    Args:
        progress: the conversation.
        box: column of ``meta`` with the gold boxes, as text or lists, in pixels of the first image.
        size: column of ``meta`` with [width, height] that the gold boxes refer to; None: the image's own.
    """
    if not progress.calls:
        return None
    example = progress.example
    try:
        gold = read_boxes(example.meta.get(box, ""))
        width, height = example.meta[size] if size else image_size(example.images[0])
    except (Unreadable, KeyError, IndexError, TypeError, ValueError) as error:
        return Verdict(None, Status.UNPARSABLE_GOLD, None, f"meta.{box}: {error}")
    scaled = [(a / width, b / height, c / width, d / height) for a, b, c, d in gold]
    best = max((_iou(call, example.images[0], scaled) for call in progress.before), default=0.0)
    now = max(_iou(call, example.images[0], scaled) for call in progress.calls)
    gain = max(0.0, now - best)
    return Verdict(gain, Status.PARTIAL, None, f"IoU {now:.3f} of the crop, {best:.3f} before")


def _iou(call: Call, original: ImageRef, gold: list[Box]) -> float:
    found = [region_of(image) for image in call.images]
    crops = [one[1] for one in found if one is not None and one[0] is original]
    whole = (0.0, 0.0, 1.0, 1.0)
    boxes = [tuple(Fraction(edge) for edge in crop) for crop in crops if crop != whole]
    return max((float(box_iou([box], gold)) for box in boxes), default=0.0)  # type: ignore[list-item]


def call_cost(progress: Progress, free: Annotated[int, Ge(0)] = 0) -> float | None:
    """-1 for each tool call, without the first ``free`` ones of the conversation.

    Args:
        progress: the conversation.
        free: calls that cost nothing.
    """
    before = max(0, len(progress.before) - free)
    after = max(0, len(progress.before) + len(progress.calls) - free)
    return float(before - after) if progress.calls else None


def malformed_cost(progress: Progress) -> float | None:
    """-1 for each call that cannot be read, or whose arguments its tool refuses."""
    bad = sum(call.status in ("malformed", "invalid") for call in progress.calls)
    return -float(bad) if bad else None


def tool_bonus(progress: Progress, tools: list[str] | None = None) -> Verdict | None:
    """1 at the end if the last answer is correct and at least one tool call succeeded, else 0.

    So that tools are not called for their own sake (the conditional reward of DeepEyes, arXiv 2505.14362).

    Args:
        progress: the conversation.
        tools: names of the tools that count; None: all.
    """
    if not progress.done:
        return None
    used = [one for one in progress.before if one.status == "ok" and (tools is None or one.name in tools)]
    if not used:
        return Verdict(0.0, Status.WRONG, None, "no tool call succeeded")
    verdict = verify(progress.completion, progress.example.answer, choices=progress.example.choices)
    if verdict.score is None:
        return verdict
    right = verdict.score >= 1
    reason = f"{len(used)} tool calls, and the answer is {verdict.status.value}"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, verdict.extracted, reason)


def answered(progress: Progress) -> float | None:
    """1 at the end if the policy ended the conversation itself, 0 if a limit of turns did."""
    return float(not progress.cut) if progress.done else None


SCORES: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (crop_iou, call_cost, malformed_cost, tool_bonus, answered)
}


def get_score(name: str, options: Mapping[str, Any] | Score | None) -> tuple[str, Score]:
    """Return the name in metrics and the score with its options bound.

    Args:
        name: one of ``SCORES``, or ``path/to/file.py:function``.
        options: keyword arguments; or, from Python, the function itself.

    Raises:
        UserError: unknown score or option, or an option of the wrong type.
    """
    if callable(options):
        return name, options
    reference, function = find_named("score", name, SCORES)
    if options is not None and not isinstance(options, Mapping):
        raise UserError(f"score {name!r} has the options {options!r}; write a mapping, such as {{}}")
    given = checked_options(f"score {name!r}", function, options or {}, skip=("progress",))
    return reference.rpartition(":")[2], partial(function, **given)
