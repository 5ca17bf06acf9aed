"""Rows of a published benchmark, from a local file or folder or from the hub, with lazily opened images.

No image is opened here, so that stored predictions can be scored without the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from data import DataError, Example, ImageRef, image_ref, read_rows
from data.images import is_embedded
from data.readers import SUFFIXES, RawRow
from eval.benchmark import DataSource

_SAVED = ("state.json", "dataset_dict.json")


def published_rows(
    source: DataSource,
    *,
    hub: str,
    config: str | None = None,
    split: str,
    file: str,
    hub_files: str | None = None,
) -> Iterator[RawRow]:
    """Read the rows of a benchmark lazily, at most ``source.limit``.

    Args:
        source: location. A path is never looked up on the network; ``source.split`` overrides ``split``.
        hub: name on the hub.
        config: configuration there, and the name of a subfolder or file of a local copy.
        split: the one usually reported.
        file: usual file name in a local copy, with placeholders ``{split}`` and ``{config}``.
        hub_files: pattern of the split's files on the hub, so that other splits are not downloaded.

    Raises:
        DataError: no data found, no such split, a row that cannot be read.
    """
    wanted = source.split or split
    if source.path is None:
        rows = _hub_rows(hub, config, wanted, hub_files)
    else:
        rows = _local_rows(source, wanted, config, file)
    return islice(_readable(rows), source.limit)


def published_files(
    folder: str | Path, *, split: str, file: str, config: str | None = None
) -> tuple[Path, ...]:
    """Return the paths of the split's rows in a local copy: a file, its shards, a saved dataset, or nothing.

    Candidates are ``file``, the same with another suffix, the split's own files (``test.parquet``,
    ``test-00000-of-00001.parquet``) and a dataset saved with ``save_to_disk``; in the folder itself, in its
    ``data`` and in the folder of the configuration.
    """
    name = file.format(split=split, config=config)
    own = [Path(folder) / inner for inner in ([config, f"data/{config}"] if config else ["", "data"])]
    for place in own:
        found = _saved(place) or _named(place, name) or _named(place, split)
        if found:
            return tuple(found)
    # Here only the name identifies the configuration: a file named after the split may be another one's.
    for place in (Path(folder), Path(folder) / "data"):
        if config and (found := _named(place, name)):
            return tuple(found)
    return ()


def published_example(
    row: RawRow,
    *,
    id: Any,  # noqa: A002  # the field of Example that it fills, as users' benchmarks write it
    question: str,
    answer: Any,
    images: Sequence[str] = ("image",),
    choices: Sequence[str] = (),
    solution: str | None = None,
) -> Example:
    """Convert a row to an example, with all published columns except the images in ``meta``.

    Args:
        row: the raw row.
        id: the question's id.
        question: its text.
        answer: the gold answer; converted to text.
        images: columns with an image, a path, a list of these, or nothing.
        choices: the options' texts.
        solution: worked solution.
    """
    return Example(
        id=str(id),
        question=question,
        answer=str(answer),
        images=tuple(ref for column in images for ref in _image_refs(row, column)),
        choices=tuple(choices),
        solution=solution,
        source=row.where,
        meta={name: value for name, value in row.values.items() if not _has_image(value)},
    )


def check_published(row: RawRow, columns: Sequence[str], name: str) -> None:
    """Raise ``DataError`` if a row lacks one of the ``columns`` of benchmark ``name``."""
    missing = [column for column in columns if column not in row.values]
    if missing:
        raise DataError(
            f"{row.where} has no {' and no '.join(missing)}, so it is not a row of {name}; it has "
            f"{', '.join(map(str, row.values)) or 'no columns'}; use the benchmark's own files, unchanged"
        )


def complete(examples: Iterable[Example], name: str) -> list[Example]:
    """Return the examples of benchmark ``name``. Raises ``DataError`` on a duplicate id, or no row."""
    known: dict[str, Example] = {}
    for example in examples:
        first = known.setdefault(example.id, example)
        if first is not example:
            raise DataError(
                f"{name}: {example.source} has the same id {example.id!r} as {first.source}; "
                "keep one row of each question"
            )
    if not known:
        raise DataError(f"{name} has no rows; give data with at least one row, or a limit above 0")
    return list(known.values())


def _local_rows(source: DataSource, split: str, config: str | None, file: str) -> Iterator[RawRow]:
    place = Path(source.path or "").expanduser()
    if place.is_file():
        # The file's name states its split; requesting another one is an error.
        own = (None, place.stem, place.stem.partition("-")[0])
        return read_rows(place, split=None if source.split in own else source.split)
    if not place.is_dir():
        raise DataError(
            f"{source.path} does not exist; give the benchmark's file or folder, or no path to load it from "
            "the hub (relative paths start at the working directory)"
        )
    found = published_files(place, split=split, file=file, config=config)
    if found:
        return _renumbered(row for one in found for row in _rows_of(one, split))
    alone = [one for one in sorted(place.iterdir()) if one.is_file() and one.suffix in SUFFIXES]
    if len(alone) == 1 and source.split is None and config is None:
        return read_rows(alone[0])
    _raise_not_found(place, file.format(split=split, config=config), split, alone)


def _raise_not_found(folder: Path, name: str, split: str, files: Sequence[Path]) -> NoReturn:
    if not files:
        raise DataError(
            f"{folder} has no {name} nor any other data file; give the folder that contains the benchmark"
        )
    raise DataError(
        f"{folder} has no {name} nor other rows of the split {split!r}, but "
        f"{', '.join(one.name for one in files)}; give one of its files, another split, or the folder that "
        "contains the benchmark"
    )


def _rows_of(place: Path, split: str) -> Iterator[RawRow]:
    return read_rows(place, split=split if (place / "dataset_dict.json").exists() else None)


def _saved(place: Path) -> list[Path]:
    return [place] if any((place / mark).exists() for mark in _SAVED) else []


def _named(place: Path, name: str) -> list[Path]:
    """Return the file of this name, else one with another suffix, else its parquet shards."""
    stem = Path(name).with_suffix("").as_posix() if Path(name).suffix in SUFFIXES else name
    for one in (place / name, *(place / f"{stem}{suffix}" for suffix in SUFFIXES)):
        if one.is_file():
            return [one]
    return sorted(place.glob(f"{stem}-*-of-*.parquet"))


def _renumbered(rows: Iterable[RawRow]) -> Iterator[RawRow]:
    """Number the rows over all shards."""
    for index, row in enumerate(rows):
        yield replace(row, index=index)


def _hub_rows(hub: str, config: str | None, split: str, files: str | None) -> Iterator[RawRow]:
    from data.readers import read_dataset

    try:
        dataset = _download(hub, config, split, files)
    except Exception as error:  # the library raises its own, pyarrow's, the network's and the system's errors
        title = f"{hub}, configuration {config!r}" if config else hub
        raise DataError(
            f"the split {split!r} of {title} cannot be loaded from the hub: {error or type(error).__name__}; "
            "without a connection, give a local copy as data"
        ) from error
    return read_dataset(dataset, hub.rpartition("/")[2], folder=None)


def _download(hub: str, config: str | None, split: str, files: str | None) -> Any:
    import datasets

    if files is None:
        return datasets.load_dataset(hub, config, split=split)
    # The hub's row counts include all splits and would not match.
    return datasets.load_dataset(
        hub,
        data_files={split: files.format(split=split)},
        split=split,
        verification_mode="no_checks",
    )


def _readable(rows: Iterable[RawRow]) -> Iterator[RawRow]:
    for row in rows:
        if row.error:
            raise DataError(f"{row.where} cannot be read: {row.error}; download the benchmark's file again")
        yield row


def _image_refs(row: RawRow, column: str) -> Iterator[ImageRef]:
    for number, value in enumerate(_as_list(row.values.get(column))):
        if value is None or value == "":
            continue
        reload = None
        if row.reload is not None and is_embedded(value):
            reload = partial(_reload_image, row.reload, column, number)
        try:
            yield image_ref(value, folder=_image_folder(row.folder, value), reload=reload)
        except DataError as error:
            # Unusable, which only matters if it is opened.
            yield ImageRef(str(value)[:200], partial(_raise, str(error)))


def _image_folder(folder: Path | None, value: Any) -> Path | None:
    """Return the base of a relative path: the rows' folder, else ``images`` in it or beside it."""
    if folder is None or not isinstance(value, str) or is_embedded(value):
        return folder
    places = (folder, folder / "images", folder.parent, folder.parent / "images")
    return next((place for place in places if (place / value).is_file()), folder)


def _reload_image(reload: Callable[[], Mapping[str, Any]], column: str, number: int) -> Any:
    return _as_list(reload()[column])[number]


def _raise(message: str) -> NoReturn:
    raise DataError(message)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _has_image(value: Any) -> bool:
    return any(is_embedded(one) or hasattr(one, "getbands") for one in _as_list(value))
