"""JSON data of the page's response browser; every text is plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from eval.report.sheets import Sheet
from mm_cpgd.report.html import sanitize

TEXT_BUDGET = 40_000_000
"""Characters of all responses; beyond it each is cut in its middle, because answers are at the end."""
LONGEST_TEXT, SHORTEST_TEXT = 20_000, 500

Row = Mapping[str, Any]
# Returns what the page stores for a row's images, given its result's index: thumbnail indices or origins.
Images = Callable[[Sheet, int, Row], list[int | str]]


def browser_data(sheets: Sequence[Sheet], images: Images) -> list[dict[str, Any]]:
    """Return one entry per benchmark, with the responses of all its results.

    Returns:
        ``name``, ``results`` (labels), ``protocols``, ``samples`` (numbers that occur), ``groups`` (values by
        dimension), ``questions``; the responses to a question are ``answers[result][sample number]``.
    """
    longest = longest_text(row["response"] for sheet in sheets for rows in sheet.rows for row in rows)
    return [_sheet_data(sheet, images, longest) for sheet in sheets]


def longest_text(texts: Iterable[str], budget: int = TEXT_BUDGET) -> int:
    """Return the limit per text that keeps the budget: ``LONGEST_TEXT``, halved as often as needed."""
    lengths = [len(text) for text in texts]
    limit = LONGEST_TEXT
    while limit > SHORTEST_TEXT and sum(min(length, limit) for length in lengths) > budget:
        limit //= 2
    return max(limit, SHORTEST_TEXT)


def shortened(text: str, longest: int) -> str:
    """Return a text of about ``longest`` characters: its beginning, a note of the omission, its end."""
    rest = len(text) - longest
    if rest <= 0:
        return sanitize(text, len(text))
    head = longest // 2
    parts = text[:head], f"\n\n[… {rest:,} characters omitted …]\n\n", text[head + rest :]
    return sanitize("".join(parts), len(text) + 100)


def _sheet_data(sheet: Sheet, images: Images, longest: int) -> dict[str, Any]:
    questions: dict[str, dict[str, Any]] = {}
    samples: set[int] = set()
    protocols = sheet.protocols
    for place, rows in enumerate(sheet.rows):
        for row in rows:
            samples.add(row["sample"])
            shown = images(sheet, place, row)
            question = questions.setdefault(row["id"], _question(row, shown, len(sheet.rows)))
            others = shown if shown != question["images"] else None
            response = _response(row, protocols, longest) | {"images": others}
            question["answers"][place][str(row["sample"])] = response
    return {
        "name": sanitize(sheet.benchmark, 200),
        "results": [sanitize(label, 200) for label in sheet.labels],
        "protocols": protocols,
        "samples": sorted(samples),
        "groups": {name: list(values) for name, values in sheet.groups(protocols[0]).items()}
        if protocols
        else {},
        "questions": list(questions.values()),
    }


def _question(row: Row, images: list[int | str], results: int) -> dict[str, Any]:
    return {
        "id": row["id"],
        "question": sanitize(row["question"]),
        "choices": [sanitize(choice, 2_000) for choice in row["choices"]],
        "answer": sanitize(row["answer"], 2_000),
        "groups": row["groups"],
        "images": images,
        "answers": [{} for _ in range(results)],
    }


def _response(row: Row, protocols: Sequence[str], longest: int) -> dict[str, Any]:
    return {
        "text": shortened(row["response"], longest),
        "missing": bool(row.get("missing")),
        "finished": row["finished"],
        "tokens": row["tokens"],
        "verdicts": [_verdict(row["protocols"].get(name)) for name in protocols],
    }


def _verdict(verdict: Row | None) -> list[Any] | None:
    """Return score, status, extracted answer and reason; None if the protocol was not requested."""
    if verdict is None:
        return None
    extracted = verdict["extracted"]
    return [
        verdict["score"],
        verdict["status"],
        None if extracted is None else sanitize(extracted, 500),
        sanitize(verdict["reason"], 1_000),
    ]
