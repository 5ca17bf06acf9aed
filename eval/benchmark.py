"""What a benchmark is: how its rows are loaded, asked, scored and grouped. One file a benchmark.

A file, the project's own (``eval/benchmarks/``) or a user's, defines one ``benchmark = Benchmark(…)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data import Example
from rewards import Verdict, verify

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
        judge: the benchmark's own scoring with an LLM, None for the general one of ``eval.judge``.
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
