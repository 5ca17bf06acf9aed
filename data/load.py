"""Loader of examples: read, convert and check all rows of a source; unusable rows with their reasons."""

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

from data.checks import CONTROL_TOKENS, ImageCheck, check_all_media, check_text
from data.columns import check_columns, check_present, missing, to_example
from data.example import DataError, Example
from data.images import MAX_PIXELS
from data.readers import RawRow, read_rows
from data.videos.sampling import VideoLimits

GENERATED = ("generated:", "cold-start:")
# Bad rows listed in the message of ``TooManyBadRows``; the others are in the quarantine file.
LISTED = 5


@dataclass(frozen=True)
class Quarantined:
    """An unusable row: its id as far as known, its place in the source, and the reason."""

    id: str
    source: str
    reason: str


@dataclass(frozen=True)
class ExampleSet:
    """Usable rows of one source in its order, and the unusable ones; ``total`` counts both."""

    examples: Sequence[Example]
    quarantined: list[Quarantined]
    total: int


class TooManyBadRows(DataError):
    """Too large a share of the rows is unusable; ``quarantined`` holds all of them."""

    def __init__(self, message: str, quarantined: list[Quarantined]) -> None:
        super().__init__(message)
        self.quarantined = quarantined


@dataclass
class _Draft:
    """A row during validation: its example where it could be converted, and the first problem found."""

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
    check_images: ImageCheck | None = "decode",
    video: VideoLimits | None = None,
    control_tokens: Sequence[str] = CONTROL_TOKENS,
    extra_checks: Sequence[Callable[[Example], str | None]] = (),
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> ExampleSet:
    """Read, convert and check all rows; no image stays in memory.

    Args:
        path: as for ``read_rows``, or ``generated:KIND[,KIND…]`` or
            ``cold-start:KIND…?describe=0.4&careful=0.3`` (see ``data.generated``) with a ``limit``.
        columns: field of ``Example`` → column or template, see ``data.columns``.
        split: split of a dataset.
        name: configuration of a hub dataset.
        limit: largest number of rows to read, unusable ones included.
        offset: number of rows to skip at the start.
        seed: seed of generated rows.
        max_bad_share: largest share (0 to 1) of unusable rows that is tolerated.
        max_image_pixels: images with more pixels are refused as decompression bombs.
        check_images: decode every image now, or read the headers only; None leaves images unopened, and
            missing ones unnoticed. Videos likewise.
        video: limits of videos, by which the frames to decode are chosen; None: the defaults.
        control_tokens: strings that no row may contain.
        extra_checks: each returns why an example cannot be used, or None; called sequentially.
        progress: called with (rows checked, all rows).
        threads: number of threads that open images; None: one per processor, at most 8.

    Raises:
        DataError: nothing to read, a mapping that fits no row, no usable row.
        TooManyBadRows: more than ``max_bad_share`` of the rows is unusable.
    """
    title = str(path) if isinstance(path, (str, Path)) else "the rows given"
    generated = isinstance(path, str) and path.startswith(GENERATED)
    if isinstance(path, str) and generated:
        drafts = _generate(path, limit, seed, offset)
    else:
        rows = read_rows(path, split=split, name=name, offset=offset, limit=limit)
        drafts = _convert(rows, check_columns(columns or {}), max_image_pixels)
    if not drafts:
        raise DataError(f"{title} has no rows" + (f" after offset {offset:,}; lower it" if offset else ""))
    _apply([partial(check_text, control_tokens=control_tokens)], drafts)
    _reject_duplicates(drafts)
    if generated or check_images is None:
        _report(progress, len(drafts), len(drafts))
    else:
        _apply_media_checks(
            partial(check_all_media, how=check_images, video=video),
            drafts,
            threads or min(8, os.cpu_count() or 1),
            progress,
        )
    _apply(extra_checks, drafts)
    return _example_set(title, drafts, max_bad_share)


def write_quarantine(path: str | Path, quarantined: Sequence[Quarantined]) -> None:
    """Write one JSON object per line (id, source, reason); the file is complete or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as lines:
            lines.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in quarantined)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _generate(path: str, limit: int | None, seed: int, offset: int) -> list[_Draft]:
    # Imported here because runs on other data do not need it.
    from data.generated import cold_start, generate

    if limit is None:
        raise DataError(f"{path}: generated rows are unlimited; set limit to the number of rows wanted")
    prefix, _, rest = path.partition(":")
    names, _, query = rest.partition("?")
    kinds = tuple(kind.strip() for kind in names.split(",") if kind.strip())
    if prefix == "generated":
        examples = generate(kinds, limit, seed, offset)
    else:
        examples = cold_start(kinds, limit, seed, offset, **_shares(path, query))
    return [_Draft(example.id, example.source, example) for example in examples]


def _shares(path: str, query: str) -> dict[str, float]:
    """Parse the shares in ``describe=0.4&careful=0.3``."""
    shares = {"describe": 0.0, "careful": 1.0}
    try:
        given = {key: float(value) for key, value in parse_qsl(query, strict_parsing=bool(query))}
    except ValueError as error:
        raise DataError(f"{path}: write shares as ?describe=0.4&careful=0.3 ({error})") from error
    if set(given) - set(shares) or any(value < 0 for value in given.values()):
        raise DataError(
            f"{path}: the shares are describe and careful, each from 0 to 1; the rest are guesses"
        )
    return shares | given


def _convert(rows: Iterator[RawRow], columns: Mapping[str, str], max_pixels: int) -> list[_Draft]:
    drafts = []
    present: set[str] = set()
    for row in rows:
        present.update(row.values)
        try:
            example = to_example(row, columns, max_pixels=max_pixels)
            drafts.append(_Draft(example.id, row.where, example, missing(row, example, columns)))
        except DataError as error:
            drafts.append(_Draft(str(row.values.get("id", "")), row.where, None, str(error)))
    if present:
        check_present(columns, present, len(drafts))
    return drafts


def _apply(checks: Sequence[Callable[[Example], str | None]], drafts: list[_Draft]) -> None:
    for draft in drafts:
        for check in checks:
            if draft.example is not None and draft.reason is None:
                draft.reason = check(draft.example)


def _reject_duplicates(drafts: list[_Draft]) -> None:
    first: dict[str, _Draft] = {}
    for draft in drafts:
        if draft.reason is None:
            known = first.setdefault(draft.id, draft)
            if known is not draft:
                draft.reason = f"the id {shortened(draft.id, 100)!r} is already used by {known.source}"


def _apply_media_checks(
    check_media: Callable[[Example], str | None],
    drafts: list[_Draft],
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    def check(draft: _Draft) -> str | None:
        if draft.example is None or draft.reason is not None:
            return draft.reason
        return check_media(draft.example)

    # Pillow releases the interpreter lock while it decodes. On Ctrl-C, map cancels what has not started.
    with ThreadPoolExecutor(threads) as pool:
        for done, (draft, reason) in enumerate(zip(drafts, pool.map(check, drafts), strict=True), 1):
            draft.reason = reason
            _report(progress, done, len(drafts))


def _report(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _example_set(title: str, drafts: list[_Draft], max_bad_share: float) -> ExampleSet:
    examples = [draft.example for draft in drafts if draft.example is not None and draft.reason is None]
    bad = [
        Quarantined(shortened(draft.id, 100), draft.source, shortened(draft.reason, 500))
        for draft in drafts
        if draft.reason is not None
    ]
    if not examples or len(bad) > max_bad_share * len(drafts):
        raise TooManyBadRows(_too_many_message(title, bad, len(drafts), max_bad_share), bad)
    return ExampleSet(examples, bad, len(drafts))


def shortened(text: str, length: int) -> str:
    """Return the text with its middle left out beyond ``length`` characters: it may hold a whole file."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} … {text[-half:]}"


def _too_many_message(title: str, bad: Sequence[Quarantined], total: int, max_bad_share: float) -> str:
    first = "".join(f"\n  {row.source}: {row.reason}" for row in bad[:LISTED])
    more = f"\n  … and {len(bad) - LISTED:,} more" if len(bad) > LISTED else ""
    advice = "fix the rows or the columns mapping"
    if len(bad) == total:
        return f"none of the {total:,} rows of {title} can be used; {advice}:{first}{more}"
    return (
        f"{len(bad):,} of {total:,} rows of {title} cannot be used ({len(bad) / total:.1%}, allowed "
        f"{max_bad_share:.1%}); {advice}, or raise max_bad_share:{first}{more}"
    )
