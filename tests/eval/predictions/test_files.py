"""Rows of a file: encodings, compression, tables, spreadsheets, and files that are cut off or misnamed."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

import pytest

from data import DataError
from eval.predictions.files import rows_of

ROWS = [{"id": "1", "response": "größer, \\boxed{6}"}, {"id": "2", "response": 'so "B"\nor not'}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
# pandas 2.3: frame.to_csv(index=False), and with the index.
CSV = 'id,response\n1,"größer, \\boxed{6}"\n2,"so ""B""\nor not"\n'
CSV_INDEX = ',id,response\n0,1,"größer, \\boxed{6}"\n1,2,"so ""B""\nor not"\n'


def read(path: Path) -> list[dict[str, object]]:
    return [dict(row.values) for row in rows_of(path)]


def mistake(path: Path) -> str:
    """The message about a file, of the reader or in a row."""
    try:
        return next(row.error for row in rows_of(path) if row.error)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", LINES), ("a.csv", CSV), ("a.json", json.dumps(ROWS))])
def test_a_text_is_read_in_every_unicode_encoding(
    tmp_path: Path, name: str, text: str, encoding: str
) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize(("name", "text"), [("a.jsonl.gz", LINES), ("a.csv.gz", CSV), ("a.json.gz", LINES)])
def test_a_compressed_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    assert read(tmp_path / name) == ROWS


def test_windows_line_ends_are_no_part_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES.replace("\n", "\r\n").encode())
    assert read(tmp_path / "a.jsonl") == ROWS


def test_a_line_separator_within_a_text_ends_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "response": "a\u2028b\x85c"}\n', encoding="utf-8")
    assert read(tmp_path / "a.jsonl") == [{"id": "1", "response": "a\u2028b\x85c"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", CSV_INDEX),
        ("a.tsv", 'id\tresponse\n1\t"größer, \\boxed{6}"\n2\t"so ""B""\nor not"\n'),
        ("a.csv", 'id;response\n1;"größer, \\boxed{6}"\n2;"so ""B""\nor not"\n'),
        ("a.csv", 'sep=;\nid;response\n1;"größer, \\boxed{6}"\n2;"so ""B""\nor not"\n'),
        ("a.csv", 'id\tresponse\n1\t"größer, \\boxed{6}"\n2\t"so ""B""\nor not"\n'),
    ],
)
def test_a_table_is_read_by_its_names_whatever_separates_its_columns(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [{key: row[key] for key in ("id", "response")} for row in read(tmp_path / name)] == ROWS


def test_lines_may_end_as_on_windows_and_on_an_old_mac(tmp_path: Path) -> None:
    for end in ("\r\n", "\r"):
        (tmp_path / "a.jsonl").write_bytes(LINES.replace("\n", end).encode())
        assert read(tmp_path / "a.jsonl") == ROWS


@pytest.mark.parametrize("absent", ["", "nan", "NaN", "None", "<NA>", "null"])
def test_a_cell_of_a_table_without_a_value_is_none(tmp_path: Path, absent: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,response,tokens\n1,{absent},3\n")
    assert read(tmp_path / "a.csv") == [{"id": "1", "response": None, "tokens": "3"}]


def test_a_spreadsheet_is_read_and_a_text_like_a_formula_stays_a_text(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        ["index", "prediction", None],
        [1, "=5", "x"],
        [2, None, None],
        [3, "1e5_x000C__x005F_x0041_", None],
    ):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx") == [
        {"index": 1, "prediction": "=5"},
        {"index": 2, "prediction": None},
        {"index": 3, "prediction": "1e5\x0c_x0041_"},
    ]


def test_a_spreadsheet_without_its_reader_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    assert "pip install 'mm-cpgd[xlsx]'" in mistake(tmp_path / "a.xlsx")


def test_a_broken_spreadsheet_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 and no more")
    assert "a.xlsx is not .xlsx" in mistake(tmp_path / "a.xlsx")


def test_parquet_is_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(ROWS).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ROWS


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"11": "x", "12": None}, [("11", "x", None), ("12", None, None)]),
        ({"11": {"response": "x"}}, [("11", "x", None)]),
        ({"11": 4}, [("11", 4, None)]),
        ({"11": ["x", "y"]}, [("11", "x", 0), ("11", "y", 1)]),
        ({"results": [{"id": "11", "response": "x"}]}, [("11", "x", None)]),
        ({"predictions": {"11": "x"}}, [("11", "x", None)]),
        ({"id": "11", "response": "x"}, [("11", "x", None)]),
    ],
)
def test_an_object_holds_rows_or_texts_by_id_or_wraps_them(
    tmp_path: Path, content: object, rows: list[object]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = [(row["id"], row["response"], row.get("sample")) for row in read(tmp_path / "a.json")]
    assert found == rows


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", LINES.encode()[:-12], "the last line is cut off .*remove that line"),
        ("a.jsonl", b'{"id" 1}\n{"id": 2}\n', "^not JSON"),
        ("a.jsonl", json.dumps(ROWS, indent=1).encode(), "one JSON value over several lines.* a.json$"),
        ("a.jsonl", json.dumps(ROWS).encode(), "one JSON list, not a row a line; rename the file a.json$"),
        ("a.json", json.dumps(ROWS).encode()[:-9], "cut off at its end"),
        ("a.json", json.dumps(ROWS).encode()[:-1] + b",]", "a.json is not JSON"),
        ("a.jsonl", LINES.replace("\n", "").encode(), "several JSON values in a line .*write one a line"),
        ("a.json", b'[{"id": 1 "response"}]', "is not JSON"),
        ("a.json", b'{"1": "a", "1": "b"}', "'1' occurs twice"),
        ("a.json", b'{"a": [[1]]}', "neither a list of rows nor an object"),
        ("a.json", b"[" * 100_000, "a.json"),
        ("a.jsonl", b"[" * 100_000, "the last line is cut off"),
        ("a.jsonl.gz", gzip.compress(LINES.encode() * 50, mtime=0)[:-20], "is cut off"),
        ("a.jsonl.gz", LINES.encode(), "cannot be unpacked"),
        ("a.jsonl", gzip.compress(LINES.encode(), mtime=0), r"compressed; name it a\.jsonl\.gz"),
        ("a.csv", b"PK\x03\x04", "name it .xlsx"),
        ("a.jsonl", LINES.encode("latin-1"), "line 1: not UTF-8.*iconv"),
        ("a.csv", b"id,response\n1,x,y\n", "more or fewer fields"),
        ("a.csv", b'id,response\n1,"x', "not .csv: unexpected end of data"),
        ("a.csv", b"id,response,response\n1,x,y\n", "two columns 'response'"),
        ("a.pkl", b"\x80", "a pickle can run code"),
        ("a.xls", b"\xd0", "save the table as .xlsx"),
        ("a.txt", b"x", "predictions files end with .jsonl"),
        ("a.jsonl", b" \n", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_and_what_to_do(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert re.search(says, mistake(tmp_path / name), re.DOTALL)


def test_a_compressed_file_is_unpacked_only_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.predictions.files.LARGEST", 1_000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * 100_000))
    assert "more than 1,000 bytes" in mistake(tmp_path / "a.jsonl.gz")
