"""Rows of parquet files and Hugging Face datasets, read row by row from disk by the ``datasets`` library.

The library keeps rows in memory-mapped Arrow files, so any row can be read again at little cost, and a
dataset takes disk space (its cache folder), not memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import DataError
from data.readers import Row

if TYPE_CHECKING:
    from datasets import Dataset

# Rows in memory at one time while reading; each may carry megabytes of encoded images.
BATCH = 16


def read_hub(
    path: str | Path, *, split: str | None, name: str | None, start: int, stop: int | None
) -> Iterator[Row]:
    """Read a parquet file, a dataset saved to a folder, a folder of data files, or a dataset of the hub.

    Raises:
        DataError: it cannot be loaded, or has several splits of which none was named.
    """
    local = Path(path).expanduser()
    try:
        loaded = _load(local, str(path), split, name)
    except Exception as error:  # the library raises its own, pyarrow's, the network's and the system's errors
        what = (
            "cannot be loaded"
            if local.exists()
            else "is neither a file or folder here nor a dataset of the hub"
        )
        raise DataError(f"{path} {what}: {error or type(error).__name__}") from error
    folder = local if local.is_dir() else local.parent if local.is_file() else None
    return read_dataset(
        _one_split(loaded, str(path), split), local.name, folder=folder, start=start, stop=stop
    )


def read_dataset(
    dataset: Dataset, title: str, *, folder: Path | None, start: int = 0, stop: int | None = None
) -> Iterator[Row]:
    """Read a ``datasets.Dataset``; images stay encoded."""
    # The arrow format gives what is stored; the default would decode every picture while rows are listed.
    stored = dataset.with_format("arrow")
    end = len(stored) if stop is None else min(stop, len(stored))
    for first in range(start, end, BATCH):
        for index, values in enumerate(stored[first : min(first + BATCH, end)].to_pylist(), first):
            yield Row(f"{title}[{index}]", index, values, folder, partial(_values, stored, index))


def _values(stored: Dataset, index: int) -> Mapping[str, Any]:
    values: Mapping[str, Any] = stored[index : index + 1].to_pylist()[0]
    return values


def _load(local: Path, path: str, split: str | None, name: str | None) -> Any:
    import datasets

    if local.is_file():
        return datasets.load_dataset("parquet", data_files=str(local), split="train")
    if (local / "state.json").exists() or (local / "dataset_dict.json").exists():
        return datasets.load_from_disk(str(local))
    return datasets.load_dataset(str(local) if local.is_dir() else path, name)


def _one_split(loaded: Any, path: str, split: str | None) -> Dataset:
    if not isinstance(loaded, Mapping):
        return loaded
    splits = list(loaded)
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        problem = "has several splits" if split is None else f"has no split {split!r}"
        raise DataError(f"{path} {problem}; set split to one of {', '.join(splits)}")
    return loaded[split]
