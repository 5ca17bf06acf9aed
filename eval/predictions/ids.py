"""Ids of predictions in the spelling of the data, also where a file has only positions."""

from __future__ import annotations

from collections.abc import Sequence
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

    renamed = [replace(one, response=replace(one.response, id=own(one))) for one in records]
    by_position = [one for one in records if one.position is not None]
    warnings = []
    if by_position:
        warnings.append(
            f"{where} has no ids: its doc_id were taken for the numbers of the data's rows from 0, which is "
            "right only if both have the same rows in the same order"
        )
    return renamed, warnings


def with_position_as_id(record: Record) -> Record:
    """Return the record with its position as its id, if it has no id."""
    if record.position is None:
        return record
    return replace(record, response=replace(record.response, id=str(record.position)))
