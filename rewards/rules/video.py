"""Rule "video_answer": what happens, when it happens, or both, as each row of a mixture asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from rewards.example import ExampleLike
from rewards.registry import rule
from rewards.rules.accuracy import accuracy, choice
from rewards.rules.common import Section, Share, partial_credit
from rewards.rules.grounding import temporal_iou
from rewards.verdict import Status, Verdict

Task = Literal["qa", "grounding", "grounded_qa"]


def _task(example: ExampleLike, column: str, span: str) -> Task | Verdict:
    """Return what a row asks for, or the verdict that it cannot be told."""
    meta: Mapping[str, Any] = getattr(example, "meta", {})
    given = meta.get(column)
    if given is None:
        return "qa" if meta.get(span) in (None, "", []) else "grounded_qa"
    for task in get_args(Task):
        if given == task:
            return task  # type: ignore[no-any-return]
    reason = f"the row's {column} is {str(given)[:40]!r}; it is one of {', '.join(get_args(Task))}"
    return Verdict(None, Status.UNPARSABLE_GOLD, None, reason)


@rule("video_answer")
def video_answer(
    completion: str,
    example: ExampleLike,
    task: str = "task",
    span: str = "span",
    read_span: Section = "span",
    share: Share = 0.5,
    several: bool = False,
) -> Verdict:
    """The right answer (0 or 1), the IoU of a span of time, or the weighted mean of both, by the row's task.

    The combination of semantic and temporal rewards of Temporal-RLT (arXiv 2506.01908), there with equal
    weights. A wrong answer with the right span, or the other way round, gets its part.

    Args:
        completion: the model's text.
        example: holds the gold answer, and for grounded questions the gold spans in ``meta``.
        task: the meta column that says "qa" (an answer), "grounding" (the answer is a span) or "grounded_qa"
            (both). Without it, rows with a gold span are "grounded_qa" and all others "qa".
        span: the meta column of the gold spans of "grounded_qa".
        read_span: the section of the completion with the span of "grounded_qa": a tag of that name.
        share: weight of the span in "grounded_qa"; the answer has the rest.
        several: False accepts only one span; more are unreadable.
    """
    asked = _task(example, task, span)
    if isinstance(asked, Verdict):
        return asked
    if asked == "grounding":
        return temporal_iou(completion, example, several=several)
    answered = choice(completion, example) if example.choices else accuracy(completion, example)
    if asked == "qa":
        return answered
    located = temporal_iou(completion, example, read=read_span, gold=span, several=several)
    for part in (answered, located):
        if part.score is None:
            return part
    score = (1 - share) * (answered.score or 0.0) + share * (located.score or 0.0)
    return partial_credit(score, answered.extracted, f"answer: {answered.reason}; span: {located.reason}")
