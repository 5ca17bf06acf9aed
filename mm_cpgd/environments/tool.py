"""Tool: a typed function that the policy may call, with checked arguments and bounded results."""

from __future__ import annotations

import math
import numbers
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image
from pydantic import ValidationError

from data.example import Example, ImageRef
from mm_cpgd.environments.call_formats import read_json
from mm_cpgd.environments.coordinates import Box, Point, ToolError, View
from mm_cpgd.environments.images import stored
from mm_cpgd.environments.protocol import Content
from mm_cpgd.environments.signature import Parameter, Signature, read_signature
from rewards.messages import nearest, short

# Bounds on arguments: far more than any tool needs, far less than what costs time or memory.
MAX_VALUES = 2_000
MAX_DEPTH = 16
MAX_TEXT = 10_000
MAX_NUMBER = 1e12
# Bounds on one result.
MAX_RESULT_TEXT = 4_000
MAX_RESULT_PIECES = 16


@dataclass(frozen=True)
class Context:
    """What tools get from the environment, by the names of their hidden parameters.

    Attributes:
        example: the row.
        images: all images of the conversation so far, the prompt's first.
        view: the model's coordinates and the size of images that it gets.
        rng: random numbers that derive from the environment's seed alone.
    """

    example: Example
    images: Sequence[ImageRef]
    view: View = field(default_factory=View)
    rng: random.Random = field(default_factory=random.Random)


class Tool:
    """A function that the policy may call.

    Its docstring is the description and its typed parameters are the arguments. A parameter of type
    ``PIL.Image.Image`` or ``data.ImageRef`` is, for the model, the number of an image of the conversation,
    counted from 1 and by default 1. Parameters named ``example``, ``images``, ``view`` and ``rng`` come from
    the environment (``Context``), and the model does not see them.

    Args:
        function: returns a text, a number, an image (PIL or reference), or a list of these.
        name: the function's own name if None.
        description: in place of the docstring.

    Raises:
        UserError: a function that cannot be a tool.
    """

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, description: str | None = None
    ) -> None:
        self.function = function
        self.name: str = name or str(getattr(function, "__name__", "tool"))
        self._description = description

    def __repr__(self) -> str:
        return f"Tool({self.name})"

    @cached_property
    def signature(self) -> Signature:
        """Description and parameters; reading them raises ``UserError`` for a function that is no tool."""
        return read_signature(self.name, self.function)

    def schema(self, view: View | None = None) -> dict[str, Any]:
        """Return what the model is told, in the format of chat templates (OpenAI's functions)."""
        description = self._description or self.signature.description
        if view is not None and any(one.hint in (Box, Point) for one in self.signature.parameters):
            description = f"{description} {view.meaning}"
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": description,
                "parameters": self.signature.schema,
            },
        }

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments converted to the parameters' types; images stay numbers.

        Raises:
            ToolError: an argument is unknown, missing, of the wrong type, or beyond the bounds.
        """
        check_bounds(arguments)
        known = {one.name: one for one in self.signature.parameters}
        for key in arguments:
            if key not in known:
                hint = nearest(short(str(key), 40), known) if known else "it takes none"
                raise ToolError(f"{self.name} has no argument {short(str(key), 40)!r}: {hint}")
        missing = [one.name for one in known.values() if one.is_required and one.name not in arguments]
        if missing:
            raise ToolError(f"{self.name} needs the argument {missing[0]!r}")
        converted = {key: self._converted(known[key], value) for key, value in arguments.items()}
        # Again: texts such as "nan" have become numbers.
        check_bounds(converted)
        return converted

    def from_texts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments that were written as texts; those of other types than text are read as JSON."""
        texts = {
            one.name: "string" in (one.schema.get("type"), *_types(one.schema))
            for one in self.signature.parameters
        }
        return {key: value if texts.get(key, True) else _value_of(value) for key, value in arguments.items()}

    def __call__(self, arguments: Mapping[str, Any], context: Context) -> tuple[Content, ...]:
        """Run the tool on checked arguments and return its result as bounded texts and images.

        Raises:
            ToolError: arguments that the tool cannot use.
            Exception: whatever the function raises.
        """
        values = dict(arguments)
        for one in self.signature.parameters:
            if one.is_image:
                values[one.name] = _image(values.get(one.name, 1), one.hint, context.images)
        for name in self.signature.hidden:
            values[name] = getattr(context, name)
        return as_content(self.function(**values), context.view.image_pixels)

    def _converted(self, parameter: Parameter, value: Any) -> Any:
        try:
            return parameter.adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "".join(f"[{short(str(step), 20)}]" for step in first["loc"] if isinstance(step, int))
            given = short(repr(value), 60)
            raise ToolError(
                f"{self.name}: argument {parameter.name + place!r} is {given}: {short(first['msg'], 120)}"
            ) from None


def _types(schema: Mapping[str, Any]) -> list[Any]:
    """Return the types between which a schema leaves the choice."""
    return [one.get("type") for one in schema.get("anyOf", ())]


def _value_of(text: Any) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return text


def check_bounds(value: Any) -> None:
    """Check values that a model wrote, before anything is computed with them.

    Raises:
        ToolError: too many or too deeply nested values, long texts, or numbers that are not finite or huge.
    """
    seen, stack = 0, [(value, 0)]
    while stack:
        one, depth = stack.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise ToolError(f"the arguments hold more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise ToolError(f"the arguments are nested more than {MAX_DEPTH} deep")
        if isinstance(one, Mapping):
            stack += [(part, depth + 1) for pair in one.items() for part in pair]
        elif isinstance(one, (list, tuple)):
            stack += [(part, depth + 1) for part in one]
        elif isinstance(one, str) and len(one) > MAX_TEXT:
            raise ToolError(f"a text of {len(one):,} characters, at most {MAX_TEXT:,} are read")
        elif isinstance(one, int) and abs(one) > MAX_NUMBER:
            raise ToolError(f"a number beyond {MAX_NUMBER:g}")
        elif isinstance(one, float) and not (math.isfinite(one) and abs(one) <= MAX_NUMBER):
            raise ToolError(f"the number {one} is not finite, or beyond {MAX_NUMBER:g}")


def _image(number: int, hint: Any, images: Sequence[ImageRef]) -> Image.Image | ImageRef:
    if not 1 <= number <= len(images):
        have = {0: "no image", 1: "1 image"}.get(len(images), f"{len(images)} images")
        raise ToolError(f"there is no image {number}; the conversation has {have}")
    ref = images[number - 1]
    return ref if hint is ImageRef else ref.open()


def as_content(result: Any, max_pixels: int) -> tuple[Content, ...]:
    """Return a tool's result as texts and images, each bounded.

    Raises:
        TypeError: something that is neither text, number nor image.
        ValueError: an image that is empty or too large.
    """
    pieces = list(result) if isinstance(result, (list, tuple)) else [result]
    if len(pieces) > MAX_RESULT_PIECES:
        raise ValueError(f"{len(pieces)} pieces in one result, at most {MAX_RESULT_PIECES} are allowed")
    content = [_piece(piece, max_pixels) for piece in pieces]
    room = MAX_RESULT_TEXT
    for index, piece in enumerate(content):
        if isinstance(piece, str):
            content[index] = piece if len(piece) <= room else piece[: max(0, room - 1)] + "…"
            room = max(0, room - len(piece))
    return tuple(content)


def _piece(piece: Any, max_pixels: int) -> Content:
    if isinstance(piece, ImageRef):
        return piece
    if isinstance(piece, Image.Image):
        return stored(piece, max_pixels)
    if isinstance(piece, str):
        return piece
    if isinstance(piece, bool):
        return "yes" if piece else "no"
    if isinstance(piece, numbers.Integral):
        return str(int(piece)) if abs(int(piece)) < 10**30 else f"{float(piece):g}"
    if isinstance(piece, numbers.Real):
        return f"{float(piece):.10g}"
    hint = "; a return statement may be missing" if piece is None else ""
    raise TypeError(
        f"the tool returned {type(piece).__name__}{hint}; allowed: text, number, image, or a list of them"
    )
