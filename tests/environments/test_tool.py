"""Tools of typed functions: schema, checked arguments, injected values, bounded results."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from data import Example, ImageRef
from mm_cpgd.environments import Context, Tool, ToolError
from mm_cpgd.environments.tool import MAX_RESULT_TEXT, as_content, check_bounds
from mm_cpgd.environments.tools import TOOLS
from mm_cpgd.errors import UserError


def paint(
    image: Image.Image,
    colour: Literal["red", "blue"],
    points: list[list[float]],
    example: Example,
    label: str | None = None,
    width: int = 2,
) -> Image.Image:
    """Paint points on an image.

    They are drawn in order.

    Args:
        image: which one.
        colour: of the
            pen.
        points: as [x, y].
        example: hidden.

    Returns:
        The image.
    """
    return image.copy()


@pytest.fixture
def context(example: Example) -> Context:
    return Context(example, example.images, rng=random.Random(0))


def test_the_schema_holds_types_defaults_and_descriptions() -> None:
    assert Tool(paint).schema() == {
        "type": "function",
        "function": {
            "name": "paint",
            "description": "Paint points on an image. They are drawn in order.",
            "parameters": {
                "type": "object",
                "properties": {
                    "image": {"type": "integer", "minimum": 1, "default": 1, "description": "which one."},
                    "colour": {"enum": ["red", "blue"], "type": "string", "description": "of the pen."},
                    "points": {
                        "type": "array",
                        "items": {"type": "array", "items": {"type": "number"}},
                        "description": "as [x, y].",
                    },
                    "label": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "width": {"type": "integer", "default": 2},
                },
                "required": ["colour", "points"],
            },
        },
    }


@pytest.mark.parametrize("tool", TOOLS.values(), ids=str)
def test_the_shipped_tools_have_valid_schemas_and_describe_every_argument(tool: Tool) -> None:
    parameters = tool.schema()["function"]["parameters"]
    Draft202012Validator.check_schema(parameters)
    assert all(one["description"] for one in parameters["properties"].values())
    assert not {"view", "example", "images", "rng"} & set(parameters["properties"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the argument 'colour'"),
        ({"colour": "red"}, "needs the argument 'points'"),
        ({"colour": "green", "points": []}, "argument 'colour' is 'green'"),
        ({"colour": "red", "points": [[1, "x"]]}, "argument 'points[0][1]'"),
        ({"colour": "red", "points": 3}, "argument 'points' is 3"),
        ({"color": "red", "points": []}, "no argument 'color': did you mean 'colour'"),
        ({"colour": "red", "points": [], "example": 1}, "no argument 'example'"),
        ({"colour": "red", "points": [], "width": 1e300}, "beyond 1e+12"),
        ({"colour": "red", "points": [[float("nan"), 1]]}, "not finite"),
        ({"colour": "red", "points": [[10**400, 1]]}, "beyond 1e+12"),
        ({"colour": "red", "points": [["nan", 1]]}, "not finite"),
        ({"colour": "red", "points": [["1e999", 1]]}, "not finite"),
        ({"colour": "red", "points": [], "label": "x" * 20_000}, "20,000 characters"),
        ({"colour": "red", "points": [[0.0] * 3_000]}, "more than 2,000 values"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError) as raised:
        Tool(paint).checked(arguments)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 400


def test_arguments_are_converted_to_the_types() -> None:
    checked = Tool(paint).checked({"colour": "red", "points": [[1, "2.5"]], "width": "3"})
    assert checked == {"colour": "red", "points": [[1.0, 2.5]], "width": 3}


def test_nested_arguments_are_bounded() -> None:
    value: Any = 1
    for _ in range(50_000):
        value = [value]
    with pytest.raises(ToolError, match="nested more than 16 deep"):
        check_bounds(value)


def test_texts_of_the_xml_form_are_read_by_type() -> None:
    texts = {"colour": "red", "points": "[[1, 2]]", "label": "7", "width": "3", "other": "x"}
    read = Tool(paint).from_texts(texts)
    assert read == {"colour": "red", "points": [[1, 2]], "label": "7", "width": 3, "other": "x"}
    assert Tool(paint).from_texts({"points": "[[1,"}) == {"points": "[[1,"}


def test_images_are_given_by_number(context: Context) -> None:
    def width(image: Image.Image, other: ImageRef) -> str:
        """Sizes."""
        return f"{image.width} {other.origin}"

    assert Tool(width)({}, context) == ("200 picture",)
    with pytest.raises(ToolError, match="no image 2; the conversation has 1 image"):
        Tool(width)({"image": 2}, context)


def test_hidden_parameters_come_from_the_context(context: Context) -> None:
    def peek(example: Example, images: Any, rng: random.Random, n: int = 1) -> list[Any]:
        """Peek."""
        return [example.answer, len(images), round(rng.random(), 3)]

    assert Tool(peek)({}, context) == ("red", "1", "0.844")


def test_results_of_every_kind_become_content() -> None:
    image = Image.new("RGB", (40, 30), "blue")
    content = as_content(["text", 3, 2.5, True, image], 10_000)
    assert content[:4] == ("text", "3", "2.5", "yes")
    assert isinstance(content[4], ImageRef)
    assert content[4].open().size == (40, 30)


def test_results_are_bounded() -> None:
    assert as_content(Image.new("RGB", (4000, 2000)), 10_000)[0].open().size == (141, 70)
    assert as_content(Image.new("L", (1, 1)), 10_000)[0].open().size == (28, 28)
    texts = as_content(["x" * 5_000, "y" * 10], 10_000)
    assert sum(map(len, texts)) <= MAX_RESULT_TEXT + 1
    with pytest.raises(ValueError, match="17 pieces"):
        as_content(["x"] * 17, 10_000)
    with pytest.raises(TypeError, match="returned NoneType"):
        as_content(None, 10_000)


def _untyped(x) -> str:
    """Text."""


def _undocumented(x: int) -> str: ...


def _star(*x: int) -> str:
    """Text."""


def _model(x: ToolError) -> str:
    """Text."""


async def _asynchronous(x: int) -> str:
    """Text."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_untyped, "'x' has no type"),
        (_undocumented, "no docstring"),
        (_star, "cannot be given by name"),
        (_model, "'x' is <class"),
        (_asynchronous, "asynchronous"),
        (lambda: 1, "the name must be an identifier"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = Tool(function).signature
