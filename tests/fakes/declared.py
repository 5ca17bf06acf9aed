"""Rows in the published layouts of declared benchmarks, written to a folder and loaded from there."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data import Example
from eval.benchmark import Benchmark, DataSource, Response
from eval.benchmarks import find_benchmark
from rewards import Verdict


def png(colour: str = "red") -> bytes:
    """Return the bytes of a small image."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


def written(folder: Path, name: str, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Path:
    """Write rows as JSON, JSON Lines or parquet, by the name's suffix; return the file."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def loaded(
    benchmark: str, folder: Path, name: str, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]
) -> tuple[Benchmark, list[Example]]:
    """Return a benchmark and its rows, read from a file of this name."""
    found = find_benchmark(benchmark)
    return found, found.load(DataSource(str(written(folder, name, rows))))


def scores(benchmark: Benchmark, example: Example, texts: Sequence[str]) -> list[float | None]:
    """Return the official scores of responses to one question."""
    return [benchmark.official(example, Response(example.id, text)).score for text in texts]


def pairs(
    benchmark: Benchmark, examples: Sequence[Example], texts: Sequence[str]
) -> list[tuple[Example, Verdict]]:
    """Return each question with the official verdict of its response."""
    return [
        (one, benchmark.official(one, Response(one.id, text)))
        for one, text in zip(examples, texts, strict=True)
    ]
