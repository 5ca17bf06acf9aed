"""What benchmarks' prompts have in common: the place of images, and options written into a question."""

from __future__ import annotations

import re

from data import Example
from data.markers import MARKER

_OPTION = re.compile(r"(?:^|(?<=[\s;；,，(（]))[(（]?([A-H])\s*[.:．：、)）]", re.MULTILINE)


def with_images(text: str, example: Example) -> str:
    """Put ``<image>`` before the text once for each image, unless it says itself where images belong."""
    # A marker without its image would stop the run; the rows that have one are the data's own mistakes.
    text = MARKER.sub(lambda mark: mark[0] if int(mark[1] or 1) <= len(example.images) else "", text)
    return text if MARKER.search(text) else "<image>\n" * len(example.images) + text


def inline_options(text: str) -> tuple[str, ...]:
    """Return the texts of the options A, B, … that end a question; empty if there are not two of them.

    "Find x. A: 4; B: 5" has the options "4" and "5".
    """
    marks = list(_OPTION.finditer(text))
    starts = [i for i, mark in enumerate(marks) if mark[1] == "A" and "B" in {m[1] for m in marks[i + 1 :]}]
    if not starts:
        return ()
    chosen = [marks[starts[-1]]]
    for mark in marks[starts[-1] + 1 :]:
        if mark[1] == chr(ord(chosen[-1][1]) + 1):
            chosen.append(mark)
    ends = [mark.start() for mark in chosen[1:]] + [len(text)]
    return tuple(
        text[mark.end() : end].strip().rstrip(";；").strip() for mark, end in zip(chosen, ends, strict=True)
    )


def options_with(gold: str, text: str) -> tuple[str, ...]:
    """Return the options in the text, if the gold letter is the letter of one of them; else none."""
    options = inline_options(text)
    return options if len(gold) == 1 and gold in "ABCDEFGH"[: len(options)] else ()
