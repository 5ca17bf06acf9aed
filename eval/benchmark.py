"""Definition of a benchmark: how its rows are loaded, prompted, scored and grouped. One file a benchmark."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data import Example
from data.example import MARKER
from rewards import Verdict, verify

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


# Sends one prompt to a judge and returns its reply; raises ``JudgeError`` when none came.
Ask = Callable[[str], str]


@dataclass(frozen=True)
class Response:
    """One answer to one question.

    Attributes:
        id: of the question.
        text: what the model wrote, whole.
        sample: 0 … k - 1 when each question was answered k times.
        extraction: what the benchmark's own first stage read out of it, where that is stored.
        finished: False when a length limit cut it off, None when nobody noted it.
        tokens: its length, None when nobody noted it.
        meta: what its record says of the question, which goes before ``Example.meta``: published outputs are
            grouped by the release of the data that they were made with.
    """

    id: str
    text: str
    sample: int = 0
    extraction: str | None = None
    finished: bool | None = None
    tokens: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSource:
    """Where to read a benchmark from.

    Attributes:
        path: a file or folder in the layout that the benchmark publishes; None for the hub.
        split: of it; None for the one that is usually reported.
        limit: rows to read at most, the first ones.
    """

    path: str | None = None
    split: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class ScoredRow:
    """A question, an answer to it, and what each protocol says of the two.

    Attributes:
        example: the question.
        response: the answer.
        verdicts: by protocol, in the order asked for; the first one is the row's own.
        missing: nobody answered: the response is a stand-in without text.
    """

    example: Example
    response: Response
    verdicts: Mapping[str, Verdict]
    missing: bool = False

    @property
    def verdict(self) -> Verdict:
        """Of the first protocol."""
        return next(iter(self.verdicts.values()))


def verified(example: Example, response: Response) -> Verdict:
    """Score by this project's verifier: the answer, or the letter or text of a choice."""
    return verify(response.text, example.answer, choices=example.choices)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as on the command line.
        source: paper and repository.
        load: reads the rows; published columns are in ``Example.meta``. Raises ``DataError``.
        prompt: what the model is asked, with ``<image>`` where an image belongs; choices included.
        official: its own rule without its LLM steps; given ``Response.extraction`` where it exists.
        groups: dimension to the values that a row has there, such as ``{"level": ["3"]}``.
        verifier: this project's verdict.
        judge: the benchmark's own scoring with an LLM, None for the general one of ``eval.scoring.judge``.
        read: makes a response of a record of the benchmark's own output format; None if that is plain.
        metrics: more numbers from the scored rows of one protocol, such as We-Math's four dimensions.
        system_prompt: put before every question, None for none.
        max_new_tokens: usual limit of an answer.
    """

    name: str
    source: str
    load: Callable[[DataSource], list[Example]]
    prompt: Callable[[Example], str]
    official: Callable[[Example, Response], Verdict]
    groups: Callable[[Example], Mapping[str, Sequence[str]]] = field(default=lambda example: {})
    verifier: Callable[[Example, Response], Verdict] = verified
    judge: Callable[[Example, Response, Ask], Verdict] | None = None
    read: Callable[[Mapping[str, Any]], Response] | None = None
    metrics: Callable[[Sequence[tuple[Example, Verdict]]], Mapping[str, Any]] | None = None
    system_prompt: str | None = None
    max_new_tokens: int = 2048
