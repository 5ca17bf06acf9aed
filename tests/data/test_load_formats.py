"""Rows as other projects and tools write them: chats, tables, missing values, damaged text, videos."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import ExampleSet, TooManyBadRows, load_examples


def encoded(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, format="PNG")
    return stream.getvalue()


def loaded(folder: Path, rows: list[dict[str, Any]], **options: Any) -> ExampleSet:
    for number, colour in enumerate(("red", "green", "blue")):
        (folder / f"{number}.png").write_bytes(encoded(colour))
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_examples(file, max_bad_share=1.0, **options)


def reasons(folder: Path, row: dict[str, Any], **options: Any) -> str:
    with pytest.raises(TooManyBadRows) as caught:
        loaded(folder, [row], **options)
    assert str(caught.value).endswith(caught.value.quarantined[0].reason)
    return caught.value.quarantined[0].reason


PLACE = {"type": "image"}
ASK = {"type": "text", "text": "How many?"}


@pytest.mark.parametrize("column", ["prompt", "messages"])
def test_a_placeholder_takes_its_picture_from_the_column(tmp_path: Path, column: str) -> None:
    (example,) = loaded(
        tmp_path, [{column: [{"role": "user", "content": [PLACE, ASK]}], "image": "0.png", "answer": "1"}]
    ).examples
    assert [image.origin for image in example.images] == ["0.png"]
    assert example.question == "How many?"


def test_several_placeholders_take_the_pictures_in_order(tmp_path: Path) -> None:
    content = [PLACE, {"type": "text", "text": "or "}, PLACE, ASK]
    row = {"prompt": [{"role": "user", "content": content}], "images": ["1.png", "0.png"], "answer": "1"}
    (example,) = loaded(tmp_path, [row]).examples
    assert [image.origin for image in example.images] == ["1.png", "0.png"]
    assert example.question == "<image>or <image>How many?"


def test_a_placeholder_without_a_picture_is_unusable(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": [PLACE, ASK]}], "answer": "1"}
    assert "an image is given as NoneType" in reasons(tmp_path, row)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [("1", "1"), ("<answer> red </answer>", "red"), ("<answer>\nx\ny\n</answer>", "x\ny")],
)
def test_a_reply_that_is_an_answer_is_the_gold_answer(tmp_path: Path, reply: str, answer: str) -> None:
    turns = [{"from": "human", "value": "<image>How many?"}, {"from": "gpt", "value": reply}]
    (example,) = loaded(tmp_path, [{"image": "0.png", "conversations": turns}]).examples
    assert example.answer == answer


@pytest.mark.parametrize("reply", ["First, I count.\nThen it is 1.", "word " * 30])
def test_a_worked_reply_is_no_gold_answer_unless_it_is_mapped(tmp_path: Path, reply: str) -> None:
    turns = [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": reply}]
    row = {"conversations": turns}
    assert reasons(tmp_path, row).startswith("empty answer; the row has the columns conversations")
    for path in ("conversations.1.value", "conversations.-1.value"):
        (example,) = loaded(tmp_path, [row], columns={"answer": path}).examples
        assert example.answer == reply.strip()


def test_a_reply_beside_an_answer_column_stays_a_solution(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "two"}]
    (example,) = loaded(tmp_path, [{"messages": turns, "answer": "1"}]).examples
    assert (example.answer, example.solution) == ("1", "two")


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (
            {"question": "q", "solution": "1", "level": 3},
            "solution may hold it; name it with columns: {answ",
        ),
        (
            {"question": "q", "reward_model": {"style": "rule", "ground_truth": "1"}},
            "reward_model.ground_truth m",
        ),
        ({"question": "q", "extra": {"label": 4}}, "{answer: extra.label}"),
        ({"question": "q", "response": "x"}, "--column answer=response"),
    ],
)
def test_a_row_without_an_answer_names_its_columns_and_what_looks_like_one(
    tmp_path: Path, row: dict[str, Any], names: str
) -> None:
    reason = reasons(tmp_path, row)
    assert reason.startswith("empty answer; the row has the columns ")
    assert all(name in reason for name in row)
    assert names in reason


def test_bare_base64_is_read(tmp_path: Path) -> None:
    text = base64.b64encode(encoded("blue")).decode()
    found = loaded(tmp_path, [{"question": "q", "answer": "1", "image": text}])
    assert found.examples[0].images[0].open().getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(
    "value",
    [
        base64.b64encode(b"GARBAGE" * 5000).decode(),
        base64.b64encode(encoded()).decode()[:150] + "!" * 30_000,
        "data:image/png;base64," + "A" * 30_000,
        "x/" * 20_000,
    ],
)
def test_a_long_value_is_never_printed_whole(tmp_path: Path, value: str) -> None:
    for row in (
        {"question": "q", "answer": "1", "image": value},
        {"question": "q", "answer": "1", "images": [value]},
        {"question": "q", "answer": "1", "id": value, "image": "gone.png"},
        {"message": [{"role": value, "content": "q"}], "answer": "1"},
        {"message": [{"role": "user", "content": [{"type": value}]}], "answer": "1"},
    ):
        with pytest.raises(TooManyBadRows) as caught:
            loaded(tmp_path, [row])
        assert len(str(caught.value)) < 1500
        assert len(caught.value.quarantined[0].id) <= 103


@pytest.mark.parametrize("field", ["question", "answer", "solution", "choices", "id", "system"])
def test_half_a_surrogate_pair_is_quarantined_wherever_it_is(tmp_path: Path, field: str) -> None:
    row: dict[str, Any] = {"question": "q", "answer": "1", "id": "a"}
    row[field] = ["x", "a\ud83d"] if field == "choices" else "a\ud83d"
    found = loaded(tmp_path, [row, {"question": "q", "answer": "1 😀", "id": "b"}])
    assert [example.answer for example in found.examples] == ["1 😀"]
    assert "half a surrogate pair" in found.quarantined[0].reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan"), np.float32("inf"), None])
def test_values_that_stand_for_nothing_are_empty(value: Any) -> None:
    rows = [{"question": "q", "answer": value}, {"question": "q", "answer": "1"}]
    found = load_examples(rows, max_bad_share=1.0)
    assert [example.answer for example in found.examples] == ["1"]
    assert found.quarantined[0].reason == "empty answer"
    kept = load_examples(
        [{"question": "q", "answer": "1", "solution": value, "choices": value, "image": value, "id": value}]
    ).examples[0]
    assert (kept.solution, kept.choices, kept.images, kept.id) == (None, (), (), "0")


def test_words_of_a_text_are_no_missing_values() -> None:
    rows = [{"question": "q", "answer": word} for word in ("nan", "inf", "None", "NaN")]
    assert [one.answer for one in load_examples(rows).examples] == ["nan", "inf", "None", "NaN"]


def test_numbers_of_numpy_are_answers() -> None:
    rows = [{"question": "q", "answer": value} for value in (np.int64(3), np.float64(0.5), np.float32(0.5))]
    assert [one.answer for one in load_examples(rows).examples] == ["3", "0.5", "0.5"]


VIDEO_ROWS: list[dict[str, Any]] = [
    {"question": "q", "videos": ["a.mp4"]},
    {"question": "q", "video": "a.mp4"},
    {"question": "q", "video": {"path": "a.mp4"}},
    {"message": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}, ASK]}]},
    {"message": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "a.mp4"}}, ASK]}]},
    {"messages": [{"role": "user", "content": "<video>q"}], "videos": ["a.mp4"]},
    {"messages": [{"role": "user", "content": [{"type": "video"}, ASK]}], "videos": ["a.mp4"]},
]


@pytest.mark.parametrize("row", VIDEO_ROWS)
def test_a_row_with_a_video_has_it_or_is_quarantined(tmp_path: Path, row: dict[str, Any]) -> None:
    assert "video file" in reasons(tmp_path, {**row, "answer": "1"})
    assert "does not exist" in reasons(tmp_path, {**row, "answer": "1"})


@pytest.mark.parametrize("text", ["<video>What happens?", "q <video1>"])
def test_a_marker_without_a_video_is_quarantined(tmp_path: Path, text: str) -> None:
    assert "but the row has no video" in reasons(tmp_path, {"question": text, "answer": "1"})


@pytest.mark.parametrize("nothing", [[], None, "", math.nan, [None], {}])
def test_an_empty_column_of_videos_does_not_matter(nothing: Any) -> None:
    rows = [{"question": "Is the video long?", "answer": "1", "videos": nothing, "topic": "video"}]
    assert len(load_examples(rows).examples) == 1


def test_a_system_turn_belongs_to_the_row(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}]
    rows: list[dict[str, Any]] = [
        {"messages": turns, "answer": "1"},
        {"query": "q", "system": "Be brief.", "answer": "1"},
        {"query": "q", "persona": "Be brief.", "answer": "1"},
        {"query": "q", "answer": "1"},
    ]
    assert [one.system for one in loaded(tmp_path, rows).examples] == ["Be brief.", "Be brief.", None, None]
    mapped = loaded(tmp_path, [rows[2]], columns={"system": "persona"}).examples[0]
    assert mapped.system == "Be brief."


@pytest.mark.parametrize(("name", "delimiter"), [("rows.tsv", "\t"), ("rows.csv", ",")])
def test_tables_are_read(tmp_path: Path, name: str, delimiter: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    image = base64.b64encode(encoded("green") * 1).decode()
    with (tmp_path / name).open("w", newline="") as file:
        table = csv.writer(file, delimiter=delimiter)
        table.writerow(["index", "image", "question", "A", "B", "C", "D", "answer", "category"])
        table.writerow([7, image, 'Which "one",\nand why?', "x", "y", "z", "", "B", "NA"])
        table.writerow([8, "a.png", "How many?", "", "", "", "", "01", "nan"])
    first, second = load_examples(tmp_path / name).examples
    assert (first.id, first.question, first.answer) == ("7", 'Which "one",\nand why?', "B")
    assert (first.choices, first.meta["category"]) == (("x", "y", "z"), "NA")
    assert first.images[0].open().getpixel((0, 0)) == (0, 128, 0)
    assert (second.answer, second.choices, second.images[0].origin) == ("01", (), "a.png")


def test_a_line_of_a_table_with_other_fields_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\nq,1\nq,1,2\nq\n")
    found = load_examples(tmp_path / "rows.csv", max_bad_share=1.0)
    assert len(found.examples) == 1
    assert {row.reason for row in found.quarantined} == {
        "the line has more or fewer fields than the first line"
    }
