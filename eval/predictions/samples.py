"""Sample numbers: rows of the same id become samples, copies are dropped, gaps are named."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from data import DataError
from eval.benchmark import Response
from eval.predictions.records import Record


def check_unique(responses: Sequence[Response], where: str) -> None:
    """Raise ``DataError`` if a question has two responses with the same sample number."""
    counts = Counter((one.id, one.sample) for one in responses)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{where}: {len(twice):,} responses occur twice, first id {twice[0][0]!r} "
            f"sample {twice[0][1]}; keep one of each"
        )


def numbered(records: Sequence[Record], where: str) -> tuple[list[Record], list[str]]:
    """Return the records with sample numbers, and warnings.

    Args:
        records: all records of a file, with the data's ids.
        where: the file, for messages.

    Raises:
        DataError: some rows have a sample number and some have none, a number occurs twice, or without
            numbers the ids occur unequally often.
    """
    without = [record for record in records if not record.numbered]
    if not without:
        check_unique([record.response for record in records], where)
        return list(records), _gaps(records)
    if len(without) < len(records):
        raise DataError(
            f"{where}: some rows have a `sample` and some have none, first {without[0].where}; number all of "
            "them, or none"
        )
    own: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        own[record.response.id].append(record)
    single, warnings = _single(own)
    return (single, warnings) if single else (_in_order(own, records, where), _alike(own))


def _absent(record: Record) -> bool:
    return record.missing or record.response.failure is not None


def _single(own: dict[str, list[Record]]) -> tuple[list[Record], list[str]]:
    """Return one record of each id if no id has two different responses, else nothing."""
    if max(map(len, own.values())) == 1:
        return [records[0] for records in own.values()], []
    texts = {
        name: {one.response.text for one in records if not _absent(one)} for name, records in own.items()
    }
    if any(len(one) > 1 for one in texts.values()):
        return [], []
    kept = {
        name: next((one for one in records if not _absent(one)), records[-1]) for name, records in own.items()
    }
    copied = [name for name in own if sum(not _absent(one) for one in own[name]) > 1]
    if not copied:
        return list(kept.values()), []
    return list(kept.values()), [
        f"{len(copied):,} of {len(own):,} ids occur several times with the same text, first "
        f"{copied[0]!r}: the file was probably written twice, and one response of each was scored; if these "
        "are samples, number them in a column `sample`"
    ]


def _in_order(own: dict[str, list[Record]], records: Sequence[Record], where: str) -> list[Record]:
    """Number the records of each id in their order; all ids must have the same number of them."""
    counts = {name: len(found) for name, found in own.items()}
    if len(set(counts.values())) > 1:
        # A failed request may be followed by its repetition.
        own = {name: [one for one in found if not _absent(one)] or found[-1:] for name, found in own.items()}
        counts = {name: len(found) for name, found in own.items()}
    usual = Counter(counts.values()).most_common(1)[0][0]
    other = [name for name, count in counts.items() if count != usual]
    if other:
        raise DataError(
            f"{where}: id {other[0]!r} occurs {counts[other[0]]} times, most ids {usual} "
            f"({len(other):,} ids differ); remove the copies, or number the responses in a column `sample`"
        )
    places = {id(one): place for found in own.values() for place, one in enumerate(found)}
    return [
        replace(one, response=replace(one.response, sample=places[id(one)]))
        for one in records
        if id(one) in places
    ]


def _alike(own: dict[str, list[Record]]) -> list[str]:
    """Return a warning if most ids have the same long text several times."""
    alike = [
        name
        for name, found in own.items()
        if len({one.response.text for one in found}) == 1 and len(found[0].response.text) > 100
    ]
    if 2 * len(alike) <= len(own):
        return []
    return [
        f"{len(alike):,} of {len(own):,} ids have the same text in every sample, first {alike[0]!r}; was the "
        "file written twice?"
    ]


def _gaps(records: Sequence[Record]) -> list[str]:
    """Return warnings that name the sample numbers that are missing, of all ids and of single ones."""
    samples = sorted({record.response.sample for record in records})
    first = min(samples[0], 1)
    absent = sorted(set(range(first, samples[-1] + 1)) - set(samples)) if samples[-1] < 1_000_000 else []
    warnings = []
    if absent:
        shown = ", ".join(map(str, absent[:10])) + (", …" if len(absent) > 10 else "")
        warnings.append(
            f"no response has the sample number {shown}, though {samples[-1]} occurs; "
            "is a part of the file missing?"
        )
    there = {(record.response.id, record.response.sample) for record in records}
    ids = dict.fromkeys(record.response.id for record in records)
    gaps = [(name, sample) for name in ids for sample in samples if (name, sample) not in there]
    if gaps:
        warnings.append(
            f"{len(gaps):,} of {len(ids) * len(samples):,} samples are not in the file, first "
            f"sample {gaps[0][1]} of id {gaps[0][0]!r}"
        )
    return warnings
