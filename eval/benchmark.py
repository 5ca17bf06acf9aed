"""Definition of a benchmark: loading, prompt, scoring and groups of its rows. One file per benchmark."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data import Example
from data.example import MARKER, VIDEO_MARKER
from rewards import Status, Verdict, verify

_OPTION = re.compile(r"(?:^|(?<=[\s;；,，(（]))[(（]?([A-H])\s*[.:．：、)）]", re.MULTILINE)


def with_images(text: str, example: Example) -> str:
    """Prepend one ``<image>`` per image, unless the text has markers itself; videos come first anyway."""
    # A marker without an image or a video would stop the run; such rows are errors in the published data.
    text = MARKER.sub(lambda mark: mark[0] if int(mark[1] or 1) <= len(example.images) else "", text)
    text = VIDEO_MARKER.sub(lambda mark: mark[0] if int(mark[1] or 1) <= len(example.videos) else "", text)
    return text if MARKER.search(text) else "<image>\n" * len(example.images) + text


def inline_options(text: str) -> tuple[str, ...]:
    """Return the texts of the options A, B, … at the end of a question; empty if there are fewer than two.

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
    """Return the options in the text if the gold letter names one of them, else an empty tuple."""
    options = inline_options(text)
    return options if len(gold) == 1 and gold in "ABCDEFGH"[: len(options)] else ()


def lettered(choices: Sequence[str]) -> str:
    """Return the options one below the other: ``(A) …``; empty without options."""
    return "\n".join(f"({chr(65 + index)}) {text}" for index, text in enumerate(choices))


# Sends one prompt to a judge and returns its reply; raises ``JudgeError`` if there is none.
Ask = Callable[[str], str]


@dataclass(frozen=True)
class Failure:
    """Reason why a question has no response; it is then not scored.

    Attributes:
        reason: one line, for the row.
        status: ``NOT_ANSWERED`` if the model could not be asked or no reply arrived, or what came in place
            of a response: one of ``DECLINED``.
        text: what came in its place, for instance the words of a refusal.
    """

    reason: str
    status: Status = Status.NOT_ANSWERED
    text: str = ""


# The server replied, but not with a response.
DECLINED = (Status.EMPTY, Status.REFUSED, Status.FILTERED, Status.TOOL_CALL)


@dataclass(frozen=True)
class Response:
    """Response of a model to one question.

    Attributes:
        id: the question's id.
        text: complete text of the model.
        sample: 0 … k - 1 with k samples per question.
        extraction: answer extracted by the benchmark's own first stage, if stored.
        finished: False when a length limit cut it off, None when unknown.
        tokens: its length, None when unknown.
        meta: columns of the stored record that override ``Example.meta``: published outputs are grouped by
            the release of the data that they were made with.
        failure: why there is no response, None if there is one; ``text`` is then what came in its place.
        forced: it was cut off, and continued with a text that asks for the answer; both are in ``text``.
    """

    id: str
    text: str
    sample: int = 0
    extraction: str | None = None
    finished: bool | None = None
    tokens: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    forced: bool = False


# Scores a response with a judge; raises what ``Ask`` raises.
ByJudge = Callable[[Example, Response, Ask], Verdict]


@dataclass(frozen=True)
class DataSource:
    """Location of a benchmark's data.

    Attributes:
        path: a file or folder in the layout that the benchmark publishes; None for the hub.
        split: None for the one usually reported.
        limit: maximum number of rows, taken from the start.
    """

    path: str | None = None
    split: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class ScoredRow:
    """A question, a response to it, and the verdict of each protocol.

    Attributes:
        example: the question.
        response: the scored response.
        verdicts: verdicts by protocol, in the requested order; the first one is the headline protocol.
        missing: there is no response to the question; ``response`` is an empty placeholder.
    """

    example: Example
    response: Response
    verdicts: Mapping[str, Verdict]
    missing: bool = False

    @property
    def verdict(self) -> Verdict:
        """Verdict of the first protocol."""
        return next(iter(self.verdicts.values()))


def verified(example: Example, response: Response) -> Verdict:
    """Score with this project's verifier: by value, or by the letter or text of a choice."""
    return verify(response.text, example.answer, choices=example.choices)


@dataclass(frozen=True)
class Benchmark:
    """Published or user-defined benchmark.

    Attributes:
        name: as on the command line.
        source: paper and repository.
        load: reads the rows; published columns are in ``Example.meta``. Raises ``DataError``.
        prompt: text for the model, with ``<image>`` at the place of an image; choices included.
        official: official scoring without its LLM steps; uses ``Response.extraction`` if available.
        groups: values of a row by dimension, such as ``{"level": ["3"]}``.
        verifier: scoring by this project's verifier.
        judge: official scoring with an LLM, None for the general judge of ``eval.scoring.judge``.
        judges: the benchmark's further judges; ``{"published": …}`` is the protocol ``judge:published``.
        by_rule: whether ``official`` has to extract the answer of a response by a rule of this project, where
            the benchmark asks an LLM; None if the benchmark asks none.
        read: converts a record of the benchmark's own output format to a response; None if that is plain.
        metrics: further metrics from the scored rows of one protocol, such as We-Math's four dimensions.
        system_prompt: for every question, None for none.
        max_new_tokens: usual limit of a response.
        title: name as its authors write it, empty if that is ``name``.
        hub: name of its data set on the Hugging Face hub, None if it is not there.
        split: split that is read, and usually reported, if none is named; None if there are several.
        fingerprint: hash of what defines it, if that is a declaration; results store it.
        published: the prompt in the published wording, where ``prompt`` is this project's, None for a row
            without one; None if there is none, or its licence does not let this project take it over.
        prompt_is_published: ``prompt`` is the published wording itself.
    """

    name: str
    source: str
    load: Callable[[DataSource], list[Example]]
    prompt: Callable[[Example], str]
    official: Callable[[Example, Response], Verdict]
    groups: Callable[[Example], Mapping[str, Sequence[str]]] = field(default=lambda example: {})
    verifier: Callable[[Example, Response], Verdict] = verified
    judge: ByJudge | None = None
    judges: Mapping[str, ByJudge] = field(default_factory=dict)
    by_rule: Callable[[Example, Response], bool] | None = None
    read: Callable[[Mapping[str, Any]], Response] | None = None
    metrics: Callable[[Sequence[tuple[Example, Verdict]]], Mapping[str, Any]] | None = None
    system_prompt: str | None = None
    max_new_tokens: int = 2048
    title: str = ""
    hub: str | None = None
    split: str | None = None
    fingerprint: str | None = None
    published: Callable[[Example], str | None] | None = None
    prompt_is_published: bool = False
