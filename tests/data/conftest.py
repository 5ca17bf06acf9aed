"""Files with rows and pictures, made when a test asks for them."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.paths import DATASETS


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Encode a plain picture."""

    def encode(
        colour: Any = "red", size: tuple[int, int] = (8, 4), kind: str = "PNG", **options: Any
    ) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", size, colour).save(stream, kind, **options)
        return stream.getvalue()

    return encode


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[Iterable[Any]], Path]:
    """Write a row a line; a text stands for the line itself."""

    def write(rows: Iterable[Any]) -> Path:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), "utf-8")
        return file

    return write


@pytest.fixture
def datasets_folder() -> Path:
    if not DATASETS.is_dir():
        pytest.skip("the real data is not beside the project (../shared/datasets)")
    return DATASETS
