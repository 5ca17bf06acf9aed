"""Benchmarks' rows from files, folders, saved datasets and the hub."""

import json
import socket

import pytest
from PIL import Image

from data import DataError
from data.readers import RawRow
from eval.benchmark import DataSource
from eval.loading import check_published, complete, published_example, published_files, published_rows

ROWS = [
    {"id": f"q{i}", "question": f"{i} + 1?", "answer": i + 1, "image": f"images/{i}.png"} for i in range(3)
]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def read(path=None, *, split=None, limit=None, config=None, file="{split}.jsonl"):
    source = DataSource(None if path is None else str(path), split, limit)
    return list(published_rows(source, hub="some/benchmark", split="test", file=file, config=config))


def lines(file, rows=ROWS):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def example(row):
    return published_example(
        row, id=row.values["id"], question=row.values["question"], answer=row.values["answer"]
    )


def make_images(folder, *, values=("red", "blue")):
    from datasets import Dataset, Features, Value
    from datasets import Image as HubImage

    files = []
    for i, colour in enumerate(values):
        files.append(str(folder / f"p{i}.png"))
        Image.new("RGB", (4, 2), colour).save(files[-1])
    rows = {"id": ["a", "b"], "question": ["?", "?"], "answer": ["1", "2"], "image": files}
    features = Features(dict.fromkeys(("id", "question", "answer"), Value("string")) | {"image": HubImage()})
    return Dataset.from_dict(rows, features=features)


def colours(rows):
    return [example(row).images[0].open().getpixel((0, 0)) for row in rows]


def test_a_file_of_lines_is_read(tmp_path):
    assert [row.values for row in read(lines(tmp_path / "any.jsonl"))] == ROWS


def test_json_may_be_a_list_or_an_object_keyed_by_id(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(ROWS))
    keyed = {row["id"]: {k: v for k, v in row.items() if k != "id"} for row in ROWS}
    (tmp_path / "keyed.json").write_text(json.dumps(keyed))
    for name in ("list.json", "keyed.json"):
        assert [row.values for row in read(tmp_path / name)] == ROWS


@pytest.mark.parametrize("inside", ["test.jsonl", "data/test.jsonl", "test.json", "only.jsonl"])
def test_the_split_is_found_in_a_folder(tmp_path, inside):
    lines(tmp_path / inside)
    assert len(read(tmp_path)) == 3


def test_the_split_of_the_source_takes_precedence_over_the_usual_one(tmp_path):
    lines(tmp_path / "test.jsonl")
    lines(tmp_path / "testmini.jsonl", ROWS[:1])
    assert (len(read(tmp_path)), len(read(tmp_path, split="testmini"))) == (3, 1)


def test_a_configuration_has_its_folder_or_its_file(tmp_path):
    lines(tmp_path / "maths/test.jsonl")
    lines(tmp_path / "physics.jsonl", ROWS[:1])
    assert len(read(tmp_path, config="maths", file="{config}.json")) == 3
    assert len(read(tmp_path, config="physics", file="{config}.json")) == 1
    assert published_files(tmp_path, split="test", file="{config}.json", config="chemistry") == ()


def test_the_rate_limit_is_kept(tmp_path):
    assert len(read(lines(tmp_path / "test.jsonl"), limit=2)) == 2


def test_a_saved_dataset_gives_its_images_without_a_connection(tmp_path):
    make_images(tmp_path).save_to_disk(tmp_path / "saved")
    rows = read(tmp_path / "saved")
    assert colours(rows) == [(255, 0, 0), (0, 0, 255)]
    assert set(example(rows[0]).meta) == {"id", "question", "answer"}


def test_a_saved_dataset_of_several_splits_returns_the_requested_one(tmp_path):
    from datasets import DatasetDict

    both = make_images(tmp_path)
    DatasetDict(test=both.select([1]), train=both).save_to_disk(tmp_path / "saved")
    assert [row.values["id"] for row in read(tmp_path / "saved")] == ["b"]
    with pytest.raises(DataError, match="no split 'val'; set split to one of test, train"):
        read(tmp_path / "saved", split="val")


def test_parquet_shards_count_on_and_carry_their_images(tmp_path):
    both = make_images(tmp_path)
    (tmp_path / "copy/data").mkdir(parents=True)
    for i in range(2):
        both.select([i]).to_parquet(tmp_path / f"copy/data/test-0000{i}-of-00002.parquet")
    rows = read(tmp_path / "copy")
    assert [(row.index, row.values["id"]) for row in rows] == [(0, "a"), (1, "b")]
    assert colours(rows) == [(255, 0, 0), (0, 0, 255)]


def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub():
    with pytest.raises(DataError, match="nowhere does not exist; give the benchmark's file or folder"):
        read("nowhere")


def test_a_missing_split_is_reported_with_the_existing_files(tmp_path):
    lines(tmp_path / "test.jsonl")
    with pytest.raises(
        DataError, match=r"has no val.jsonl nor other rows of the split 'val', but test.jsonl"
    ):
        read(tmp_path, split="val")
    with pytest.raises(DataError, match="single file and has no split 'val'"):
        read(tmp_path / "test.jsonl", split="val")


def test_a_file_may_be_named_with_its_own_split(tmp_path):
    for name in ("val.jsonl", "val-00000-of-00001.jsonl"):
        assert len(read(lines(tmp_path / name), split="val")) == 3


def test_a_reference_to_an_embedded_image_holds_no_bytes_of_it(tmp_path):
    make_images(tmp_path).save_to_disk(tmp_path / "saved")
    stream = example(read(tmp_path / "saved")[0]).images[0].load.stream
    assert not [kept for kept in (*stream.args, *stream.args[0].args) if isinstance(kept, (bytes, dict))]


def test_a_line_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"id": 1}\n{"id": \n')
    with pytest.raises(DataError, match=r"test.jsonl:2 cannot be read: not JSON.*again"):
        read(tmp_path)


def test_without_a_connection_the_hub_says_to_give_a_local_copy(monkeypatch):
    import datasets

    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        DataError, match=r"'test' of some/benchmark cannot be loaded.*no route; without a conn"
    ):
        read()


def test_the_hub_is_asked_for_one_split_and_for_no_code(monkeypatch, tmp_path):
    import datasets

    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kinds: asked.append((args, kinds)) or make_images(tmp_path)
    )
    assert colours(read(config="maths")) == [(255, 0, 0), (0, 0, 255)]
    assert asked == [(("some/benchmark", "maths"), {"split": "test"})]


def test_missing_columns_are_one_message():
    with pytest.raises(
        DataError, match=r"t:1 has no answer and no level, so it is not a row of X; it has id"
    ):
        check_published(RawRow("t:1", 0, {"id": 1}), ("id", "answer", "level"), "X")


def test_a_duplicate_id_and_an_empty_set_are_refused():
    row = RawRow("t:1", 0, ROWS[0])
    with pytest.raises(DataError, match="t:1 has the same id 'q0' as t:1"):
        complete([example(row), example(row)], "X")
    with pytest.raises(DataError, match="X has no rows"):
        complete([], "X")


def test_a_missing_image_is_an_error_only_when_it_is_opened(tmp_path):
    found = example(read(lines(tmp_path / "test.jsonl"))[0])
    assert found.meta == ROWS[0]
    with pytest.raises(DataError, match=r"images/0.png does not exist"):
        found.images[0].open()


@pytest.mark.parametrize("value", ["https://example.org/a.png", "a.png", 7])
def test_an_image_that_can_never_be_opened_does_not_stop_scoring(value):
    found = example(RawRow("t:1", 0, ROWS[0] | {"image": value}))
    with pytest.raises(DataError):
        found.images[0].open()


def test_images_in_the_images_folder_are_found(tmp_path):
    lines(tmp_path / "test.jsonl", [ROWS[0] | {"image": "version/0.png"}])
    (tmp_path / "images/version").mkdir(parents=True)
    Image.new("RGB", (1, 1), "lime").save(tmp_path / "images/version/0.png")
    assert colours(read(tmp_path)) == [(0, 255, 0)]
