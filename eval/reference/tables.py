"""Published tables: the YAML files of ``published/``, one per source, and tables of users.

A file has the layout of the table that it was read from (columns are benchmarks, rows are models), so that it
can be proofread against its source. Null is a number that the source does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mm_cpgd.errors import UserError

FOLDER = Path(__file__).parent / "published"
OURS = Path(__file__).parent / "ours.yaml"
Origin = Literal["own run", "taken over", "not stated"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedSettings(_Strict):
    r"""Settings behind a published number; None is one that the source does not state.

    Attributes:
        min_pixels: images were scaled up to this area.
        max_pixels: images were scaled down to this area.
        max_new_tokens: length limit of a response.
        temperature: 0 for the most probable token.
        top_p: probability mass of the tokens that were sampled from.
        markers: what the prompt asks for, such as ``\boxed`` or ``<think>``; no wording.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    markers: tuple[str, ...] | None = None

    def stated(self) -> dict[str, Any]:
        """Return the settings that the source states."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class _Column(_Strict):
    benchmark: str
    split: str | None = None
    value: str | None = "accuracy"
    n: int | None = Field(None, ge=1)
    settings: dict[str, Any] = {}


class _Row(_Strict):
    model: str
    numbers: list[float | None]
    origin: Origin | None = None
    rule: str | None = None
    note: str | None = None
    settings: dict[str, Any] = {}


class _Table(_Strict):
    source: str
    url: str = Field(pattern=r"^https?://")
    read: str
    rule: str
    origin: Origin
    note: str | None = None
    settings: dict[str, Any] = {}
    columns: list[_Column] = Field(min_length=1)
    rows: list[_Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> _Table:
        for row in self.rows:
            if len(row.numbers) != len(self.columns):
                raise ValueError(f"{row.model} has {len(row.numbers)} numbers in {len(self.columns)} columns")
            if not all(number is None or 0 <= number <= 100 for number in row.numbers):
                raise ValueError(f"{row.model} has a number that is not between 0 and 100 percent")
        return self


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        model: its name in this project; ``models.yaml`` has others.
        benchmark: name of the benchmark here.
        split: split or version, as the source names it; None if it does not.
        value: which of a result's numbers it is: ``accuracy``, ``groups.DIMENSION.VALUE``, ``metrics.NAME``;
            None if the source does not say which of several.
        number: in percent.
        n: number of questions, None if not stated.
        rule: whose rule scored the responses.
        origin: whether the source's authors measured it, took it over, or do not say.
        source: paper or repository, with the table.
        url: address of the source.
        read: how it was read.
        note: what else a reader should know of this model's numbers.
        about: the same of all numbers of the source.
        settings: the settings behind it that are stated.
    """

    model: str
    benchmark: str
    split: str | None
    value: str | None
    number: float
    n: int | None
    rule: str
    origin: Origin
    source: str
    url: str
    read: str
    note: str | None
    about: str | None
    settings: PublishedSettings

    def shown(self) -> str:
        """Return the number with the digits that its source gives."""
        return shown_number(self.number)


class Own(_Strict):
    """A number of this project's own run, from ``ours.yaml``; in percent, with its 95 % interval."""

    model: str
    benchmark: str
    split: str
    protocol: str
    number: float = Field(ge=0, le=100)
    n: int = Field(ge=1)
    interval: tuple[float, float]
    command: str


def load_published(extra: Sequence[str | Path] = ()) -> list[Published]:
    """Return all published numbers, those of the files ``extra`` last. Raises ``UserError``."""
    return [*_shipped(), *(number for path in extra for number in read_table(path))]


@cache
def _shipped() -> tuple[Published, ...]:
    return tuple(number for path in sorted(FOLDER.glob("*.yaml")) for number in read_table(path))


def read_table(path: str | Path) -> list[Published]:
    """Return the numbers of one file. Raises ``UserError`` if it cannot be read or is no table."""
    content = _read(path)
    try:
        return list(_numbers(_Table.model_validate(content)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the table"
        raise UserError(
            f"{path}: {place}: {first['msg']}; the files in {FOLDER} show the layout of a table"
        ) from error


def _read(path: str | Path) -> Any:
    try:
        return yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name a YAML file of a table") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error


def _numbers(table: _Table) -> Iterator[Published]:
    for row in table.rows:
        for column, number in zip(table.columns, row.numbers, strict=True):
            if number is not None:
                yield Published(
                    row.model, column.benchmark, column.split, column.value, number, column.n,
                    row.rule or table.rule, row.origin or table.origin, table.source, table.url, table.read,
                    row.note, table.note, _settings(table, column, row),
                )  # fmt: skip


def _settings(table: _Table, column: _Column, row: _Row) -> PublishedSettings:
    """Return the settings of a cell; a source states those of its authors' own runs only."""
    if (row.origin or table.origin) != "own run":
        return PublishedSettings()
    return PublishedSettings.model_validate({**table.settings, **column.settings, **row.settings})


def shown_number(number: float) -> str:
    """Return a number in percent with one decimal, or with two where it has them."""
    return f"{number:.1f}" if round(number, 1) == number else f"{number:.2f}"


def load_ours() -> list[Own]:
    """Return the numbers of this project's own runs."""
    return TypeAdapter(list[Own]).validate_python(_read(OURS))


def same_benchmark(a: str, b: str) -> bool:
    """Return whether two names mean the same benchmark; case and the marks - and _ do not count."""
    return _plain(a) == _plain(b)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
