"""The rule "format": the tags in order, once each, filled, and nothing outside."""

from __future__ import annotations

from typing import Annotated

from annotated_types import MinLen

from rewards.registry import Answerable, rule
from rewards.rules.common import Checked, tag_name
from rewards.verdict import Status, Verdict

Tags = Annotated[tuple[Annotated[str, Checked(tag_name)], ...], MinLen(1)]


def _fault(text: str, tags: tuple[str, ...]) -> str | None:
    """What is wrong with the format, or None. Each step narrows to what the next may assume."""
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    for mark in marks:
        if text.count(mark) != 1:
            return f"{mark} stands {text.count(mark)} times, not once"
    places = [text.index(mark) for mark in marks]
    if places != sorted(places):
        return "the tags are not in the order " + " ".join(marks)
    ends = [place + len(mark) for place, mark in zip(places, marks, strict=True)]
    # Between marks lie, in turn, what should be blank and what should be filled.
    spaces = [text[start:end].strip() for start, end in zip([0, *ends], [*places, len(text)], strict=True)]
    if any(spaces[::2]):
        return "there is text outside of the tags"
    empty = [tag for tag, content in zip(tags, spaces[1::2], strict=True) if not content]
    return f"<{empty[0]}> is empty" if empty else None


@rule("format")
def format_tags(completion: str, example: Answerable, tags: Tags = ("think", "answer")) -> Verdict:
    """1 if the completion is <think>…</think><answer>…</answer>, both filled and nothing outside, else 0.

    Args:
        completion: the model's text.
        example: not looked at.
        tags: other tags than these, in their order.
    """
    fault = _fault(completion, tags)
    if fault:
        return Verdict(0.0, Status.WRONG, None, fault)
    return Verdict(1.0, Status.CORRECT, None, "all tags in order")
