"""Ids of predictions in the spelling of the data, also where a file has only positions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from data import Example
from eval.predictions.cells import canonical_id
from eval.predictions.records import Record


def with_data_ids(
    records: Sequence[Record], examples: Sequence[Example], where: str
) -> tuple[list[Record], list[str]]:
    """Return the records with the data's spelling of their ids, and warnings.

    ``11.0``, `` 11`` and ``0011`` are the id ``11`` if the data have no other that is spelled so. A record
    without an id is about the question at its position.

    Raises:
        DataError: a position beyond the end of the data.
    """
    known = {one.id for one in examples}
    spellings: dict[str, list[str]] = {}
    for name in known:
        spellings.setdefault(canonical_id(name), []).append(name)

    def own(record: Record) -> str:
        name = record.response.id
        if record.position is not None:
            return (
                examples[record.position].id if record.position < len(examples) else f"row {record.position}"
            )
        alike = spellings.get(canonical_id(name), [])
        return alike[0] if name not in known and len(alike) == 1 else name

    stated = [one.response.id for one in records]
    around = _around([one.response.id for one in records if one.position is None], spellings)
    records = [_without(one, *around) for one in records]
    renamed = [replace(one, response=replace(one.response, id=own(one))) for one in records]
    by_position = [one for one in records if one.position is not None]
    warnings = []
    if any(around):
        name, first = next(
            (old, new.response.id) for old, new in zip(stated, renamed, strict=True) if new.position is None
        )
        warnings.append(
            f"no id in {where} is one of the data's: {name!r} was taken for {first!r}, "
            "and the others likewise; do the predictions belong to these data?"
        )
    if by_position:
        warnings.append(
            f"{where} has no ids: its doc_id were taken for the numbers of the data's rows from 0, which is "
            "right only if both have the same rows in the same order"
        )
    return renamed, warnings


def _around(ids: Sequence[str], known: Collection[str]) -> tuple[str, str]:
    """Return the texts before and after all ids without which each is one of the data's; else two empty ones.

    ``mathvision_11`` is the id ``11``. No such text ends with a digit next to the id.
    """
    distinct = list(dict.fromkeys(ids))
    if not distinct or any(canonical_id(one) in known for one in distinct):
        return "", ""
    before, after = _common(distinct), _common([one[::-1] for one in distinct])
    for start in _cuts(before):
        for end in _cuts(after):
            left = [one[start : len(one) - end] for one in distinct]
            if all(left) and all(canonical_id(one) in known for one in left):
                return distinct[0][:start], distinct[0][len(distinct[0]) - end :]
    return "", ""


def _common(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    first, last = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length]


def _cuts(text: str) -> list[int]:
    """Return 0 and the longest lengths of a common text that do not end with a digit, at most 20."""
    ends = [length for length in range(1, len(text) + 1) if not text[length - 1].isdigit()]
    return [0, *reversed(ends)][:20]


def _without(record: Record, before: str, after: str) -> Record:
    if record.position is not None or not (before or after):
        return record
    name = record.response.id
    return replace(record, response=replace(record.response, id=name[len(before) : len(name) - len(after)]))


def with_position_as_id(record: Record) -> Record:
    """Return the record with its position as its id, if it has no id."""
    if record.position is None:
        return record
    return replace(record, response=replace(record.response, id=str(record.position)))
