"""From a path to examples that can be used, and the rows that cannot, each with its reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from data.checks import CONTROL_TOKENS, ImageCheck, check_pictures, check_text
from data.columns import check_columns, check_present, to_example
from data.example import DataError, Example
from data.images import MAX_PIXELS
from data.readers import Row, read_rows

GENERATED = ("generated:", "cold-start:")
# Named in the message of a set with too many bad rows; the others are in the quarantine file.
SHOWN = 5


@dataclass(frozen=True)
class Quarantined:
    """A row that cannot be used: its id as far as known, where it was, and why."""

    id: str
    source: str
    reason: str


@dataclass(frozen=True)
class ExampleSet:
    """The usable rows of one source, in its order, and the others; ``total`` is both together."""

    examples: Sequence[Example]
    quarantined: list[Quarantined]
    total: int


class TooManyBadRows(DataError):
    """Too large a share of the rows is unusable; ``quarantined`` has them all."""

    def __init__(self, message: str, quarantined: list[Quarantined]):
        super().__init__(message)
        self.quarantined = quarantined


@dataclass
class _Draft:
    """A row on its way: an example while nothing speaks against it, and the first thing that does."""

    id: str
    source: str
    example: Example | None
    reason: str | None = None


def load_examples(
    path: str | Path | Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    name: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    seed: int = 0,
    max_bad_share: float = 0.1,
    max_image_pixels: int = MAX_PIXELS,
    check_images: ImageCheck = "decode",
    control_tokens: Sequence[str] = CONTROL_TOKENS,
    extra_checks: Sequence[Callable[[Example], str | None]] = (),
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> ExampleSet:
    """Read, convert and check all rows; no image stays in memory.

    Args:
        path: as for ``read_rows``, or ``generated:KIND[,KIND…]`` or
            ``cold-start:KIND…?describe=0.4&careful=0.3`` (see ``data.generated``) with a ``limit``.
        columns: field of ``Example`` to column or template, see ``data.columns``.
        split: of a dataset.
        name: configuration of a hub dataset.
        limit: rows to read at most, the unusable ones included.
        offset: rows to pass over at the start.
        seed: of generated rows.
        max_bad_share: larger shares (0 to 1) of unusable rows are an error.
        max_image_pixels: images with more are decompression bombs.
        check_images: decode every image now, or read the headers only.
        control_tokens: texts that no row may contain.
        extra_checks: each returns why an example cannot be used, or None; called one row after another.
        progress: called with (rows checked, all rows).
        threads: that open images at one time; None: as many as processors, 8 at most.

    Raises:
        DataError: nothing to read, a mapping that fits no row, no usable row.
        TooManyBadRows: more than ``max_bad_share`` is unusable.
    """
    title = str(path) if isinstance(path, (str, Path)) else "the rows given"
    generated = isinstance(path, str) and path.startswith(GENERATED)
    if isinstance(path, str) and generated:
        drafts = _generated(path, limit, seed, offset)
    else:
        rows = read_rows(path, split=split, name=name, offset=offset, limit=limit)
        drafts = _converted(rows, check_columns(columns or {}), max_image_pixels)
    if not drafts:
        raise DataError(f"{title} has no rows" + (f" after offset {offset:,}; lower it" if offset else ""))
    _apply([partial(check_text, control_tokens=control_tokens)], drafts)
    _refuse_duplicates(drafts)
    if generated:
        _report(progress, len(drafts), len(drafts))
    else:
        _apply_to_pictures(check_images, drafts, threads or min(8, os.cpu_count() or 1), progress)
    _apply(extra_checks, drafts)
    return _result(title, drafts, max_bad_share)


def write_quarantine(path: str | Path, quarantined: Sequence[Quarantined]) -> None:
    """Write one JSON object a line (id, source, reason); the file is complete or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as lines:
            lines.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in quarantined)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _generated(path: str, limit: int | None, seed: int, offset: int) -> list[_Draft]:
    # Imported here, because most runs on people's own data need none of it.
    from data.generated import cold_start, generate

    if limit is None:
        raise DataError(f"{path}: generated rows never end; set limit to how many you want")
    prefix, _, rest = path.partition(":")
    names, _, query = rest.partition("?")
    kinds = tuple(kind.strip() for kind in names.split(",") if kind.strip())
    if prefix == "generated":
        examples = generate(kinds, limit, seed, offset)
    else:
        examples = cold_start(kinds, limit, seed, offset, **_shares(path, query))
    return [_Draft(example.id, example.source, example) for example in examples]


def _shares(path: str, query: str) -> dict[str, float]:
    """Return the shares in ``describe=0.4&careful=0.3``."""
    shares = {"describe": 0.0, "careful": 1.0}
    try:
        given = {key: float(value) for key, value in parse_qsl(query, strict_parsing=bool(query))}
    except ValueError as error:
        raise DataError(f"{path}: write shares as ?describe=0.4&careful=0.3 ({error})") from error
    if set(given) - set(shares) or any(value < 0 for value in given.values()):
        raise DataError(f"{path}: shares are describe and careful, each from 0 to 1; the rest is hasty")
    return shares | given


def _converted(rows: Iterator[Row], columns: Mapping[str, str], max_pixels: int) -> list[_Draft]:
    drafts = []
    seen: set[str] = set()
    for row in rows:
        seen.update(row.values)
        try:
            example = to_example(row, columns, max_pixels=max_pixels)
            drafts.append(_Draft(example.id, row.where, example))
        except DataError as error:
            drafts.append(_Draft(str(row.values.get("id", "")), row.where, None, str(error)))
    if seen:
        check_present(columns, seen, len(drafts))
    return drafts


def _apply(checks: Sequence[Callable[[Example], str | None]], drafts: list[_Draft]) -> None:
    for draft in drafts:
        for check in checks:
            if draft.example is not None and draft.reason is None:
                draft.reason = check(draft.example)


def _refuse_duplicates(drafts: list[_Draft]) -> None:
    first: dict[str, _Draft] = {}
    for draft in drafts:
        if draft.reason is None:
            known = first.setdefault(draft.id, draft)
            if known is not draft:
                draft.reason = f"the id {draft.id!r} is already that of {known.source}"


def _apply_to_pictures(
    how: ImageCheck, drafts: list[_Draft], threads: int, progress: Callable[[int, int], None] | None
) -> None:
    def check(draft: _Draft) -> str | None:
        if draft.example is None or draft.reason is not None:
            return draft.reason
        return check_pictures(draft.example, how)

    # Pillow decodes without the interpreter's lock. On Ctrl-C, map cancels what has not begun.
    with ThreadPoolExecutor(threads) as pool:
        for done, (draft, reason) in enumerate(zip(drafts, pool.map(check, drafts), strict=True), 1):
            draft.reason = reason
            _report(progress, done, len(drafts))


def _report(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _result(title: str, drafts: list[_Draft], max_bad_share: float) -> ExampleSet:
    examples = [draft.example for draft in drafts if draft.example is not None and draft.reason is None]
    bad = [Quarantined(draft.id, draft.source, draft.reason) for draft in drafts if draft.reason is not None]
    if not examples or len(bad) > max_bad_share * len(drafts):
        raise TooManyBadRows(_too_many(title, bad, len(drafts), max_bad_share), bad)
    return ExampleSet(examples, bad, len(drafts))


def _too_many(title: str, bad: Sequence[Quarantined], total: int, max_bad_share: float) -> str:
    first = "".join(f"\n  {row.source}: {row.reason}" for row in bad[:SHOWN])
    more = f"\n  … and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    advice = "mend the rows or the columns mapping"
    if len(bad) == total:
        return f"none of the {total:,} rows of {title} can be used; {advice}:{first}{more}"
    return (
        f"{len(bad):,} of {total:,} rows of {title} cannot be used ({len(bad) / total:.1%}, allowed are "
        f"{max_bad_share:.1%}); {advice}, or raise max_bad_share:{first}{more}"
    )
