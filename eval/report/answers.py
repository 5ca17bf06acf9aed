"""What the page's browser of answers is given: plain JSON, every text as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from eval.report.sheets import Sheet
from mm_cpgd.report.page import visible

TEXT_BUDGET = 40_000_000
"""Characters of all completions; beyond it each is cut in its middle, for answers stand at the end."""
LONGEST_TEXT, SHORTEST_TEXT = 20_000, 500

Row = Mapping[str, Any]
# Gives what the page stores for a row's images, by its result's place: places of thumbnails, or origins.
Images = Callable[[Sheet, int, Row], list[int | str]]


def browser_data(sheets: Sequence[Sheet], images: Images) -> list[dict[str, Any]]:
    """Return one entry for each benchmark; answers of its results stand side by side.

    Returns:
        ``name``, ``results`` (labels), ``protocols``, ``samples`` (numbers that occur), ``groups`` (values by
        dimension), ``questions``; of a question ``answers[result][sample number]``.
    """
    longest = longest_text(row["response"] for sheet in sheets for rows in sheet.rows for row in rows)
    return [_sheet_data(sheet, images, longest) for sheet in sheets]


def longest_text(texts: Iterable[str], budget: int = TEXT_BUDGET) -> int:
    """Return the limit for one text with which all fit: ``LONGEST_TEXT``, halved as often as needed."""
    lengths = [len(text) for text in texts]
    limit = LONGEST_TEXT
    while limit > SHORTEST_TEXT and sum(min(length, limit) for length in lengths) > budget:
        limit //= 2
    return max(limit, SHORTEST_TEXT)


def shortened(text: str, longest: int) -> str:
    """Return a text of about ``longest`` characters: its beginning and its end, and what is missing."""
    rest = len(text) - longest
    if rest <= 0:
        return visible(text, len(text))
    head = longest // 2
    parts = text[:head], f"\n\n[… {rest:,} characters are left out here …]\n\n", text[head + rest :]
    return visible("".join(parts), len(text) + 100)


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
            answer = _answer(row, protocols, longest) | {"images": others}
            question["answers"][place][str(row["sample"])] = answer
    return {
        "name": visible(sheet.benchmark, 200),
        "results": [visible(label, 200) for label in sheet.labels],
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
        "question": visible(row["question"]),
        "choices": [visible(choice, 2_000) for choice in row["choices"]],
        "answer": visible(row["answer"], 2_000),
        "groups": row["groups"],
        "images": images,
        "answers": [{} for _ in range(results)],
    }


def _answer(row: Row, protocols: Sequence[str], longest: int) -> dict[str, Any]:
    return {
        "text": shortened(row["response"], longest),
        "missing": bool(row.get("missing")),
        "finished": row["finished"],
        "tokens": row["tokens"],
        "verdicts": [_verdict(row["protocols"].get(name)) for name in protocols],
    }


def _verdict(said: Row | None) -> list[Any] | None:
    """Return score, status, extracted answer and reason; None where the protocol was not asked."""
    if said is None:
        return None
    extracted = said["extracted"]
    return [
        said["score"],
        said["status"],
        None if extracted is None else visible(extracted, 500),
        visible(said["reason"], 1_000),
    ]
