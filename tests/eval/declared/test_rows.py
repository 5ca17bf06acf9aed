"""Rows of a declared benchmark: parts, filters, forms of options and gold answers, images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data import DataError
from data.readers import RawRow
from eval.benchmark import DataSource
from eval.benchmarks import find_benchmark
from eval.declared import rows
from eval.declared.schema import Declaration
from tests.fakes.declared import written

ROW = {"id": 1, "question": "Which?", "answer": "B", "image": "1.png"}


def declaration(**changes: Any) -> Declaration:
    return Declaration.model_validate(
        {
            "title": "Parts",
            "source": "made up",
            "data": {"hub": "me/parts", "splits": "test"},
            "columns": {"id": "id", "question": "question", "answer": "answer"},
            "prompt": {"text": "{{ question }}"},
            "answer": {"kind": "letter"},
            "read_from": "here",
            **changes,
        }
    )


def example(values: dict[str, Any], **changes: Any) -> Any:
    return rows.example_of(declaration(**changes), RawRow("rows[0]", 0, {**ROW, **values}, Path("/data")))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked of the hub, which has one row of each part."""
    seen: list[dict[str, Any]] = []

    def published_rows(source: DataSource, **how: Any) -> Iterator[RawRow]:
        seen.append({"split": how["split"], "config": how["config"], "hub": how["hub"]})
        place = f"{how['config']}-{how['split']}"
        yield RawRow(place, 0, {**ROW, "id": place, "pid": place, "options": "['a', 'b']"})

    monkeypatch.setattr(rows, "published_rows", published_rows)
    return seen


def test_all_parts_are_asked_of_the_hub_in_their_order(asked: list[dict[str, Any]]) -> None:
    find_benchmark("emma").load(DataSource())
    assert asked == [
        {"hub": "luckychao/EMMA", "config": subject, "split": "test"}
        for subject in ("Math", "Physics", "Chemistry", "Coding")
    ]


def test_a_limit_asks_for_no_further_part(asked: list[dict[str, Any]]) -> None:
    assert len(find_benchmark("mmmu").load(DataSource(limit=2))) == 2
    assert [one["config"] for one in asked] == ["Accounting", "Agriculture"]


def test_a_named_split_replaces_the_usual_ones(asked: list[dict[str, Any]]) -> None:
    rows.load(
        declaration(data={"hub": "me/parts", "splits": ["a", "b"], "configs": "c"}), DataSource(split="dev")
    )
    assert asked == [{"hub": "me/parts", "config": "c", "split": "dev"}]


def test_rows_know_their_number_split_and_configuration(asked: list[dict[str, Any]]) -> None:
    found = rows.load(
        declaration(
            data={"hub": "me/parts", "splits": ["a", "b"]},
            columns={"id": "{{ _split }}-{{ _row }}", "question": "question", "answer": "answer"},
        ),
        DataSource(),
    )
    assert [one.id for one in found] == ["a-0", "b-1"]


def test_rows_are_filtered_before_they_are_counted(tmp_path: Path) -> None:
    file = written(
        tmp_path, "test.jsonl", [{**ROW, "id": i, "level": i % 2, "file": f"{i}.mp4"} for i in range(6)]
    )
    data = {"hub": "me/parts", "splits": "test", "where": {"level": 1}, "without": {"file": r"3\.MP4"}}
    found = rows.load(declaration(data=data), DataSource(str(file), limit=2))
    assert [one.id for one in found] == ["1", "5"]


def test_the_only_configuration_needs_no_folder_of_its_name(tmp_path: Path) -> None:
    written(tmp_path, "dev-00000-of-00001.parquet", [ROW])
    data = {"hub": "me/parts", "splits": "dev", "configs": "en"}
    assert len(rows.load(declaration(data=data), DataSource(str(tmp_path)))) == 1


def test_a_row_without_a_needed_column_is_refused_with_those_it_has() -> None:
    with pytest.raises(
        DataError, match=r"rows\[0\] has no label or gold, so it is not a row of Parts; it has id"
    ):
        example({}, columns={"id": "id", "question": "question", "answer": "label or gold"})


@pytest.mark.parametrize(
    ("options", "values", "choices"),
    [
        ({"column": "options"}, {"options": ["cat", "dog"]}, ("cat", "dog")),
        ({"column": "options"}, {"options": "['cat', \"dog's\"]"}, ("cat", "dog's")),
        ({"column": "options"}, {"options": '["cat", "dog"]'}, ("cat", "dog")),
        ({"column": "options"}, {"options": {"A": "cat", "B": "dog"}}, ("cat", "dog")),
        ({"column": "options"}, {"options": None}, ()),
        ({"column": "options"}, {"options": "[]"}, ()),
        ({"columns": ["A", "B", "C"]}, {"A": "cat", "B": "None", "C": "nan"}, ("cat", "None")),
        ({"columns": ["A", "B"]}, {"choices": ["cat", "dog"]}, ("cat", "dog")),
        ({"within": "question"}, {"question": "Which?\nA: cat, B: dog"}, ("cat", "dog")),
        ({"within": "question"}, {"question": "Which?"}, ()),
    ],
)
def test_options_stand_in_one_of_three_ways(
    options: dict[str, Any], values: dict[str, Any], choices: tuple[str, ...]
) -> None:
    assert example(values, options=options).choices == choices


def test_a_text_that_begins_as_a_list_and_is_none_is_refused() -> None:
    with pytest.raises(DataError, match=r"rows\[0\]: .* begins as a list and is none"):
        example({"options": "[cat, dog"}, options={"column": "options"})


@pytest.mark.parametrize(
    ("form", "value", "answer", "golds"),
    [
        ("text", " 12 ", "12", ["12"]),
        ("text", None, "", []),
        ("letter", "(B)", "B", ["B"]),
        ("letter", "A, C", "A, C", ["A, C"]),
        ("index", 1, "B", ["B"]),
        ("index", "0", "A", ["A"]),
        ("list", ["x", "y"], "x", ["x", "y"]),
        ("list", "['24/7', '3.43']", "24/7", ["24/7", "3.43"]),
        ("list", "[0, 1)", "[0, 1)", ["[0, 1)"]),
        ("box", r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}", [r"\frac{1}{2}"]),
        ("box", "no box", "", []),
        ("tag", "<answer> 4 </answer>", "4", ["4"]),
    ],
)
def test_a_gold_answer_is_read_in_its_form(form: str, value: Any, answer: str, golds: list[str]) -> None:
    found = example({"answer": value}, answer={"kind": "text", "form": form})
    assert (found.answer, found.meta["_golds"]) == (answer, golds)


def test_an_index_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="the answer 'B' is not the index of an option"):
        example({"answer": "B"}, answer={"kind": "letter", "form": "index"})


def test_values_of_a_gold_answer_have_meanings() -> None:
    found = example({"answer": 1}, answer={"kind": "yes_no", "values": {"1": "Yes", "0": "No"}})
    assert found.answer == "Yes"


@pytest.mark.parametrize(
    ("images", "values", "question", "origins"),
    [
        (["a", "b"], {"a": "a.png", "b": "b.png"}, "<image2> and <image1>", ["a.png", "b.png"]),
        (["a", "b"], {"a": None, "b": "b.png"}, "<image1> and", ["b.png"]),
        ("a", {"a": ["x.png", "y.png"]}, "<image2> and <image1>", ["x.png", "y.png"]),
        ("a", {"a": "['x.png', 'y.png']"}, "<image2> and <image1>", ["x.png", "y.png"]),
        ("pictures/{{ id }}.png", {}, "<image2> and <image1>", ["pictures/1.png"]),
        ("a or b", {"b": "b.png"}, "<image2> and <image1>", ["b.png"]),
        ("a", {}, "<image2> and <image1>", []),
        (["a", "b"], {}, "and", []),
    ],
)
def test_markers_name_images_by_their_place_in_the_row(
    images: Any, values: dict[str, Any], question: str, origins: list[str]
) -> None:
    columns = {"id": "id", "question": "question", "answer": "answer", "images": images}
    found = example({"question": "<image 2> and <image_1>", **values}, columns=columns)
    assert [image.origin for image in found.images] == origins
    assert found.question == question
