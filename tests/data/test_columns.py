import json
from pathlib import Path
from typing import Any

import pytest

from data.columns import check_columns, check_present, to_example
from data.example import DataError, Example
from data.readers import RawRow


def made(values: dict[str, Any], **columns: str) -> Example:
    return to_example(RawRow("rows:4", 3, values, Path("/data")), check_columns(columns))


def chat(*parts: Any, role: str = "user") -> str:
    return json.dumps([{"role": role, "content": list(parts)}])


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def image(path: str) -> dict[str, str]:
    return {"type": "image", "image": path}


def origins(example: Example) -> list[str]:
    return [ref.origin for ref in example.images]


def test_usual_names_need_no_mapping() -> None:
    row = {"id": 5, "problem": "why?", "image_path": "a.png", "gold": 7, "options": ["x", "y"]}
    example = made(row)
    assert (example.id, example.question, example.answer) == ("5", "why?", "7")
    assert (origins(example), example.choices, example.source) == (["a.png"], ("x", "y"), "rows:4")


def test_a_mapping_takes_precedence_over_the_usual_names() -> None:
    row = {"question": "no", "q": "yes", "answer": 1, "a": 2}
    example = made(row, question="q", answer="a")
    assert (example.question, example.answer) == ("yes", "2")


def test_a_template_is_filled_from_columns() -> None:
    example = made(
        {"id": "33", "question": "q", "unit": None}, image="tables/{id}.png", question="{question} [{unit}]"
    )
    assert (origins(example), example.question) == (["tables/33.png"], "q []")


def test_a_dotted_source_names_a_nested_column() -> None:
    assert made({"question": "q", "reward": {"truth": "3"}}, answer="reward.truth").answer == "3"


def test_a_column_whose_name_has_a_dot_is_found_first() -> None:
    assert made({"question": "q", "a.b": "flat", "a": {"b": "deep"}}, answer="a.b").answer == "flat"


def test_the_row_number_can_replace_a_missing_id() -> None:
    assert made({"question": "q"}).id == "3"
    assert made({"id": "same", "question": "q"}, id="{id}-{_row}").id == "same-3"


@pytest.mark.parametrize("value", [None, "", []])
def test_a_row_may_have_no_image(value: Any) -> None:
    assert made({"question": "q", "image": value}).images == ()


def test_a_row_may_have_many_images() -> None:
    assert origins(made({"question": "q", "images": ["a.png", "b.png"]})) == ["a.png", "b.png"]


def test_lists_of_scalars_become_meta_and_objects_do_not() -> None:
    row = {
        "question": "q",
        "answer": "a",
        "boxes": [[0, 0, 1, 2]],
        "also": ["b", "c"],
        "nested": {"a": 1},
        "mixed": [{}],
    }
    assert made(row).meta == {"boxes": [[0, 0, 1, 2]], "also": ["b", "c"]}


def test_a_long_list_stays_out_of_meta() -> None:
    assert made({"question": "q", "answer": "a", "pixels": list(range(10_000))}).meta == {}


def test_other_scalar_columns_become_meta() -> None:
    row = {"question": "q", "level": 2, "unit": None, "table": {"x": 1}, "blob": b"1", "long": "a" * 10_001}
    assert made(row).meta == {"level": 2, "unit": None}


def test_a_worked_solution_never_counts_as_the_answer() -> None:
    example = made({"question": "q", "answer": None, "solution": "long story"})
    assert (example.answer, example.solution) == ("", "long story")
    assert made({"question": "q", "solution": "long story"}).answer == ""


def test_an_answer_in_tags_is_unwrapped() -> None:
    assert made({"question": "q", "solution": " <answer> 3 </answer>"}).answer == "3"


@pytest.mark.parametrize(
    ("value", "answer"), [(0, "0"), (1.5, "1.5"), (True, "True"), (["b"], "b"), (" x ", "x")]
)
def test_an_answer_of_any_scalar_type_becomes_text(value: Any, answer: str) -> None:
    assert made({"question": "q", "answer": value}).answer == answer


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": ["a", "b"]}, "answer is a list, not a text or number"),
        ({"question": {"en": "q"}}, "question is a dict, not a text or number"),
        ({"question": "q", "choices": "A. x B. y"}, "choices is a str, not a list"),
        ({"question": "q", "image": "https://a.example/b.png"}, "is a web address"),
        ({"question": "q", "image": 3}, "given as int"),
        ({"message": "[{"}, "message is not JSON"),
        ({"message": "3"}, "message is not a chat"),
        ({"message": chat({"type": "audio"})}, "content item of type 'audio'"),
        ({"message": chat(text("q"), role="tool")}, "the role 'tool'"),
        ({"message": [{"role": "user", "content": "a"}] * 2}, "message has 2 user turns"),
        ({"message": [{"role": "user", "content": 3}]}, "message content is int"),
    ],
)
def test_a_row_that_fits_no_field_says_why(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(row)


def test_the_reference_form_is_read() -> None:
    example = made({"id": "0", "message": chat(image("file:///a.png"), text("How many?")), "answer": "$6$"})
    assert (example.id, example.question, example.answer) == ("0", "How many?", "$6$")
    assert origins(example) == ["file:///a.png"]


def test_images_between_texts_of_a_chat_leave_a_marker_at_their_position() -> None:
    example = made({"message": chat(text("Is "), image("a.png"), text(" like "), image("b.png"), text("?"))})
    assert (example.question, origins(example)) == ("Is <image> like <image>?", ["a.png", "b.png"])


def test_markers_that_a_chat_has_already_are_kept_alone() -> None:
    example = made({"message": chat(text("Is it <image>?"), image("a.png"))})
    assert example.question == "Is it <image>?"


def test_a_chat_provides_its_system_text_and_its_answer() -> None:
    turns = [("system", "be brief"), ("user", "q"), ("assistant", "because")]
    example = made({"messages": [{"role": role, "content": content} for role, content in turns]})
    assert (example.question, example.solution, example.system) == ("q", "because", "be brief")
    assert example.meta == {}


def test_a_chat_of_from_and_value_is_read() -> None:
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    example = made({"conversations": turns, "image": "a.png"})
    assert (example.question, example.solution, origins(example)) == ("<image>\nq", "a", ["a.png"])


def test_a_prompt_column_may_be_a_chat_beside_an_image_column() -> None:
    example = made({"prompt": [{"role": "user", "content": "<image> q"}], "images": ["a.png"]})
    assert (example.question, origins(example)) == ("<image> q", ["a.png"])


def test_unused_keys_of_arrow_parts_are_no_images() -> None:
    parts = [{"type": "image", "image": "a.png", "text": None}, {"type": "text", "text": "q", "image": None}]
    example = made({"messages": [{"role": "user", "content": parts}]})
    assert (example.question, origins(example)) == ("q", ["a.png"])


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'anser' is no field; .* did you mean 'answer'"):
        check_columns({"anser": "a"})


def test_a_field_mapped_under_two_names_is_refused() -> None:
    with pytest.raises(DataError, match="mapped twice, to 'a' and 'b'"):
        check_columns({"image": "a", "images": "b"})


@pytest.mark.parametrize("source", ["gold", "{id}-{gold}", "gold.value"])
def test_a_mapping_to_a_column_of_no_row_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"none of 2 rows has a column 'gold.*the columns are id, question"):
        check_present({"answer": source}, ["id", "question"], 2)


def test_a_mapping_to_columns_of_some_rows_is_accepted() -> None:
    check_present({"answer": "reward.truth", "id": "{id}-{_row}"}, ["id", "reward"], 2)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ([0.1, 0.2, 0.5, 1.0], "[0.1, 0.2, 0.5, 1.0]"),
        ([[1, 2, 3, 4], [5, 6, 7, 8]], "[[1, 2, 3, 4], [5, 6, 7, 8]]"),
        ([[1, 2, 3, 4]], "[[1, 2, 3, 4]]"),
        ([7], "7"),
    ],
)
def test_a_box_or_several_may_be_the_answer(value: list[Any], answer: str) -> None:
    assert made({"question": "?", "box": value}, answer="box").answer == answer


@pytest.mark.parametrize("value", [["a", "b"], [1, "b"], [1, float("nan")], [True, False], [[1], []]])
def test_other_lists_are_no_answer(value: list[Any]) -> None:
    with pytest.raises(DataError, match="answer is a list"):
        made({"question": "?", "box": value}, answer="box")
