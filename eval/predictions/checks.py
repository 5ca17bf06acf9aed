"""Checks of predictions: their own questions against the data's, missing responses, suspicious texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rapidfuzz import fuzz

from data import Example
from eval.benchmark import Benchmark
from eval.predictions.columns import NAMES
from eval.predictions.records import Record
from rewards.math.clean import plain_text
from rewards.messages import short
from rewards.verify import grade

# Similarity of two wordings of one question, in percent: other quotes, spaces, LaTeX commands.
SAME_QUESTION = 85
# Shorter normalised questions say nothing.
SHORTEST = 3
# Characters that a cell of .xlsx can hold; longer texts are cut by the writer.
CELL = 32_767
_LONGEST = 20_000
_MARK = re.compile(r"<image\s*\d*>|<\|[^|>]*\|>|\\[a-zA-Z]+")
# Spaces, quotes, marks of sentences and of LaTeX, which templates change; + and = belong to the question.
_LOOSE = re.compile(r"[\s.,;:?!'\"`’“”$*_{}\\]+")


def question_warnings(
    records: Sequence[Record], examples: Sequence[Example], benchmark: Benchmark
) -> list[str]:
    """Return a warning if the file's own questions are not the data's."""
    by_id = {one.id: one for one in examples}
    compared, other = 0, []
    for record in records:
        example = by_id.get(record.response.id)
        if example is None or not record.question or len(_words(record.question)) < SHORTEST:
            continue
        compared += 1
        if not _is_same(record.question, example, benchmark):
            other.append((record, example))
    if not other:
        return []
    record, example = other[0]
    return [
        f"in {len(other):,} of {compared:,} responses the file's own question is not the data's, first id "
        f"{example.id!r}: {short(record.question or '', 80)!r}, in the data {short(example.question, 80)!r}; "
        "do the predictions belong to these data?"
    ]


def _is_same(question: str, example: Example, benchmark: Benchmark) -> bool:
    """Return whether a text contains the example's question, is contained in it, or is another wording."""
    own = _words(question)
    return any(
        len(other) < SHORTEST
        or other in own
        or own in other
        or fuzz.partial_ratio(own, other) >= SAME_QUESTION
        for text in _wordings(example, benchmark)
        for other in (_words(text),)
    )


def _wordings(example: Example, benchmark: Benchmark) -> Iterator[str]:
    """Yield the question, its published variants, and last the prompt, which may fail on incomplete rows."""
    yield example.question
    for name, value in example.meta.items():
        if isinstance(value, str) and re.search("question|query", str(name)) and " " in value.strip():
            yield value
    try:
        yield benchmark.prompt(example)
    except Exception:  # a user's function
        return


def _words(text: str) -> str:
    return _LOOSE.sub("", _MARK.sub(" ", text[:_LONGEST])).casefold()


def answer_warnings(records: Sequence[Record], examples: Sequence[Example]) -> list[str]:
    """Return a warning if the file's own gold answers are not the data's."""
    by_id = {one.id: one for one in examples}
    pairs = [
        (record, by_id[record.response.id])
        for record in records
        if record.answer and record.response.id in by_id and by_id[record.response.id].answer.strip()
    ]
    other = [(record, example) for record, example in pairs if not _is_gold(record.answer or "", example)]
    if not other:
        return []
    record, example = other[0]
    return [
        f"in {len(other):,} of {len(pairs):,} responses the file's own gold answer is not the data's, which "
        f"is used, first id {example.id!r}: {short(record.answer or '', 60)!r}, in the data "
        f"{short(example.answer, 60)!r}; are these predictions of another version of the data?"
    ]


def _is_gold(answer: str, example: Example) -> bool:
    """Return whether a text is the gold answer, as published or as used, or means the same."""
    columns = (*NAMES["answer"], "label", "final_answer")
    published = [str(example.meta[name]) for name in columns if example.meta.get(name) is not None]
    accepted = [example.answer, *example.meta.get("_golds", ()), *published]
    if plain_text(answer) in map(plain_text, accepted):
        return True
    same = grade(answer, example.answer, example.choices)
    # A gold answer that cannot be verified says nothing.
    return same.score is None or same.score == 1


def text_warnings(records: Sequence[Record], suffix: str) -> list[str]:
    """Return warnings about responses that are empty, name no value, or were cut by the file's format."""
    answered = [one for one in records if not one.missing and one.response.failure is None]
    empty = [one for one in answered if not one.response.text.strip() and one.response.extraction is None]
    null = [one for one in answered if one.response.text.strip() in ("None", "null")]
    cut = [one for one in answered if len(one.response.text) == CELL and suffix == ".xlsx"]
    found: Mapping[str, Sequence[Record]] = {
        "are empty texts and count as wrong": empty,
        "are the text None or null, and were scored as it; if these are failed requests, remove them": null,
        f"have exactly {CELL:,} characters, where .xlsx cuts a text: their ends are lost": cut,
    }
    return [
        f"{len(some):,} of {len(records):,} responses {what}; first id {some[0].response.id!r}"
        for what, some in found.items()
        if some
    ]


def missing_warnings(records: Sequence[Record]) -> list[str]:
    """Return a warning about the responses that are null; failures are in the flags of every result."""
    silent = [one for one in records if one.missing and one.response.failure is None]
    if not silent:
        return []
    return [
        f"{len(silent):,} of {len(records):,} responses in the file are null or NaN, and missing; first "
        f"id {silent[0].response.id!r}"
    ]
