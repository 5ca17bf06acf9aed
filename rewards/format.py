"""The rule "format": reasoning and answer in their tags, in order, once each, and nothing outside."""

from __future__ import annotations

from rewards.registry import Answerable, rule
from rewards.verdict import Status, Verdict

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def _fault(text: str) -> str | None:
    """What is wrong with the format, or None. Each step narrows to what the next may assume."""
    for tag in _TAGS:
        if text.count(tag) != 1:
            return f"{tag} stands {text.count(tag)} times, not once"
    places = [text.index(tag) for tag in _TAGS]
    if places != sorted(places):
        return "the tags are not in the order " + " ".join(_TAGS)
    before, rest = text.split("<think>")
    thinking, rest = rest.split("</think>")
    between, rest = rest.split("<answer>")
    answer, after = rest.split("</answer>")
    if (before + between + after).strip():
        return "there is text outside of the tags"
    if not thinking.strip() or not answer.strip():
        return "the reasoning is empty" if not thinking.strip() else "the answer is empty"
    return None


@rule("format")
def format_tags(completion: str, example: Answerable) -> Verdict:
    """1 if the completion is <think>…</think><answer>…</answer>, both filled and nothing outside, else 0."""
    fault = _fault(completion)
    if fault:
        return Verdict(0.0, Status.WRONG, None, fault)
    return Verdict(1.0, Status.CORRECT, None, "all tags in order")
