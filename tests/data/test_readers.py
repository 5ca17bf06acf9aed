import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.example import DataError
from data.readers import read_rows

Jsonl = Callable[..., Path]
Png = Callable[..., bytes]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def parquet(tmp_path: Path, png: Png) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": png((i, 0, 0)), "path": None} for i in range(40)]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": list(range(40)), "image": images}), file)
    return file


def written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def ids(path: Any, **options: Any) -> list[Any]:
    return [row.values["id"] for row in read_rows(path, **options)]


def test_a_json_list_gives_its_rows(tmp_path: Path) -> None:
    assert ids(written(tmp_path / "a.json", '[{"id": 1}, {"id": 2}]')) == [1, 2]


def test_a_json_object_gives_its_keys_as_ids(tmp_path: Path) -> None:
    assert ids(written(tmp_path / "a.json", '{"33": {"q": 1}, "7": {"q": 2}}')) == ["33", "7"]


def test_an_id_in_the_row_takes_precedence_over_the_key(tmp_path: Path) -> None:
    assert ids(written(tmp_path / "a.json", '{"33": {"id": "own"}}')) == ["own"]


def test_json_lines_give_a_row_per_line_and_skip_blank_lines(jsonl: Jsonl) -> None:
    rows = list(read_rows(jsonl([{"id": 1}, "", {"id": 2}])))
    assert [(row.index, row.where) for row in rows] == [(0, "rows.jsonl:1"), (1, "rows.jsonl:3")]


def test_json_lines_under_the_name_json_are_recognised(tmp_path: Path) -> None:
    assert ids(written(tmp_path / "a.json", '{"id": 1}\n{"id": 2}\n')) == [1, 2]


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", '{"id": 1}\n'), ("a.json", '[{"id": 1}]')])
def test_a_byte_order_mark_is_no_part_of_the_row(tmp_path: Path, name: str, text: str) -> None:
    assert ids(written(tmp_path / name, "\ufeff" + text)) == [1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": ', "not JSON: Expecting value"),
        ("[1]", "a list instead of an object with columns"),
        ('{"id": 1, "id": 2}', "not JSON: the key 'id' occurs twice"),
        ("[" * 100_000, "not JSON: "),
    ],
)
def test_a_malformed_line_is_one_bad_row_with_file_and_line(jsonl: Jsonl, line: str, reason: str) -> None:
    good, bad, last = read_rows(jsonl([{"id": 1}, line, {"id": 3}]))
    assert (good.error, last.error, bad.where) == (None, None, "rows.jsonl:2")
    assert bad.error is not None
    assert bad.error.startswith(reason)


def test_a_line_that_is_no_text_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "\xff"}\n')
    (row,) = read_rows(tmp_path / "a.jsonl")
    assert row.error is not None
    assert "can't decode byte 0xff" in row.error


def test_a_line_can_be_read_again(jsonl: Jsonl) -> None:
    rows = list(read_rows(jsonl([{"id": "é"}, {"id": 2}])))
    assert rows[1].reload is not None
    assert rows[1].reload() == {"id": 2}


@pytest.mark.parametrize("form", ["list", "lines", "parquet", "memory"])
def test_offset_and_limit_choose_rows_and_keep_their_index(form: str, tmp_path: Path, parquet: Path) -> None:
    rows = [{"id": i} for i in range(40)]
    lines = written(tmp_path / "b.jsonl", "\n".join(map(json.dumps, rows)))
    whole = written(tmp_path / "a.json", json.dumps(rows))
    path: Any = {"list": whole, "lines": lines, "parquet": parquet, "memory": rows}[form]
    chosen = list(read_rows(path, offset=15, limit=3))
    assert [(row.index, row.values["id"]) for row in chosen] == [(15, 15), (16, 16), (17, 17)]
    assert len(list(read_rows(path, offset=38, limit=9))) == 2


def test_parquet_rows_come_encoded_and_can_be_read_again(parquet: Path, png: Png) -> None:
    row = list(read_rows(parquet))[39]
    assert row.values["image"]["bytes"] == png((39, 0, 0))
    assert row.reload is not None
    assert row.reload() == row.values


def test_a_saved_dataset_is_read_from_its_folder(parquet: Path, tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_parquet(str(parquet)).save_to_disk(tmp_path / "saved")
    assert ids(tmp_path / "saved") == list(range(40))


def test_images_of_a_dataset_stay_encoded(png: Png) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"id": 1, "image": {"bytes": png(), "path": None}}])
    (row,) = read_rows(rows.cast_column("image", datasets.Image()))
    assert row.values["image"]["bytes"] == png()


def test_several_splits_require_a_choice(tmp_path: Path) -> None:
    import datasets

    one = datasets.Dataset.from_list([{"id": 1}])
    two = datasets.Dataset.from_list([{"id": 2}])
    datasets.DatasetDict(train=one, test=two).save_to_disk(tmp_path / "both")
    assert ids(tmp_path / "both", split="test") == [2]
    with pytest.raises(DataError, match="has several splits; set split to one of train, test"):
        read_rows(tmp_path / "both")
    with pytest.raises(DataError, match="has no split 'dev'; set split to one of train, test"):
        read_rows(tmp_path / "both", split="dev")


def test_a_folder_with_one_file_is_that_file(jsonl: Jsonl) -> None:
    assert ids(jsonl([{"id": 1}]).parent) == [1]


def test_a_split_is_the_file_of_that_name_in_the_folder(tmp_path: Path) -> None:
    written(tmp_path / "train.json", '[{"id": 1}]')
    written(tmp_path / "test.json", '[{"id": 2}]')
    assert ids(tmp_path, split="test") == [2]


def test_a_folder_of_several_files_is_left_to_the_datasets_library(tmp_path: Path) -> None:
    for split in ("train", "test"):
        written(tmp_path / f"{split}-00000.jsonl", f'{{"id": "{split}"}}\n')
    assert ids(tmp_path, split="train") == ["train"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "", "is empty"),
        ("a.jsonl", "", "is empty"),
        ("a.json", '[{"id": 1}', "is not JSON"),
        ("a.json", "3", "neither a list of rows nor an object of rows by id"),
        ("a.json", '{"1": {}, "1": {}}', "the key '1' occurs twice"),
        ("a.xml", "id", r"end with \.json, \.jsonl, \.ndjson, \.parquet, \.csv, \.tsv"),
        ("a.parquet", "text", "cannot be loaded"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(read_rows(written(tmp_path / name, text)))
    assert name in str(caught.value)


@pytest.mark.parametrize("path", ["gone.jsonl", "./gone", "a/b/gone"])
def test_a_missing_path_is_not_looked_up_on_the_hub(path: str) -> None:
    with pytest.raises(DataError, match="does not exist; relative paths start at"):
        read_rows(path)


def test_an_unknown_hub_name_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(DataError, match="neither a local file or folder nor a dataset of the hub: no net"):
        read_rows("someone/something")


def test_a_hub_name_is_loaded_with_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[object] = []
    rows = datasets.Dataset.from_list([{"id": 5}])

    def load(*names: object) -> dict[str, object]:
        asked.extend(names)
        return {"dev": rows}

    monkeypatch.setattr("datasets.load_dataset", load)
    assert ids("someone/something", name="small") == [5]
    assert asked == ["someone/something", "small"]


def test_a_file_has_no_split(jsonl: Jsonl) -> None:
    with pytest.raises(DataError, match="has no split 'train'; leave split out"):
        read_rows(jsonl([{"id": 1}]), split="train")
