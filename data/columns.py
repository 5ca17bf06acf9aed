"""Mapping of a row's columns to an ``Example``, by the config or by well-known names; rows that hold a chat.

``columns`` maps a field of ``Example`` to the column that holds it, to a path into nested columns and lists
(``reward_model.ground_truth``, ``conversations.-1.value``), or to a template with columns in braces
(``tables/{id}.png``).
A column that a row lacks counts as empty.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

from data.chat import Chat, parse_chat
from data.example import DataError, Example, ImageRef
from data.images import MAX_PIXELS, image_ref, is_embedded
from data.readers import RawRow, Values
from data.videos.reference import Clip, is_list_of_images, seconds, video_ref
from data.videos.timeline import VideoRef

# Field → columns that are tried in this order where the config names none.
DEFAULTS: dict[str, tuple[str, ...]] = {
    "id": ("id", "ID", "pid", "uid", "question_id", "index"),
    "question": ("question", "problem", "prompt", "query"),
    "message": ("message", "messages", "conversations"),
    "images": ("images", "image", "image_path", "image_paths", "img_path", "file_name"),
    "answer": ("answer", "gold", "ground_truth", "final_answer"),
    "solution": ("solution", "rationale"),
    "choices": ("choices", "options"),
    "system": ("system", "system_prompt"),
    "videos": ("videos", "video", "video_path", "video_paths"),
    "video_start": ("video_start",),
    "video_end": ("video_end",),
    "video_fps": ("video_fps",),
}
ALIASES = {"image": "images", "video": "videos", "options": "choices", "messages": "message"}
# Longer text in an unused column is rarely a property worth reporting and often an embedded file.
META_CHARACTERS = 10_000

_BRACES = re.compile(r"\{([^{}]+)\}")
# Names of columns, nested ones too, that may hold the gold answer.
_LIKE_ANSWER = re.compile(r"answer|solution|truth|gold|label|target|correct|response|output", re.IGNORECASE)
# Longest reply of an assistant that counts as the answer itself, in characters; a longer one is a solution.
REPLY_CHARACTERS = 80
_TAGGED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)


def check_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the mapping with canonical field names. Raises ``DataError`` for unknown or repeated ones."""
    known: dict[str, str] = {}
    for target, source in columns.items():
        field = ALIASES.get(target, target)
        if field not in DEFAULTS:
            near = get_close_matches(target, [*DEFAULTS, *ALIASES], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"columns: {target!r} is no field; the fields are {', '.join(DEFAULTS)}{hint}")
        if field in known:
            raise DataError(f"columns: {target!r} is mapped twice, to {known[field]!r} and {source!r}")
        known[field] = source
    return known


def check_present(columns: Mapping[str, str], present: Iterable[str], rows: int) -> None:
    """Raise ``DataError`` for a mapping to a column that is ``present`` in none of the ``rows``."""
    names = set(present)
    for target, source in columns.items():
        for column in _BRACES.findall(source) or [source]:
            if column != "_row" and column not in names and column.split(".")[0] not in names:
                raise DataError(
                    f"columns: {target} is mapped to {source!r}, but none of {rows:,} rows has a column "
                    f"{column!r}; the columns are {', '.join(sorted(names))}"
                )


def to_example(row: RawRow, columns: Mapping[str, str], *, max_pixels: int = MAX_PIXELS) -> Example:
    """Convert a row to an example; opens no image.

    Args:
        row: as read.
        columns: as returned by ``check_columns``.
        max_pixels: passed to the image references.

    Raises:
        DataError: the row cannot be used; says why.
    """
    if row.error:
        raise DataError(row.error)
    sources = {field: _source(field, row.values, columns) for field in DEFAULTS}
    chat = _chat(row.values, columns)
    question = chat.question if chat else _text(_get(row, sources["question"]), "question")
    solution = _text(_get(row, sources["solution"]), "solution") or (chat.solution if chat else None)
    system = chat.system if chat and chat.system else _text(_get(row, sources["system"]), "system")
    return Example(
        id=_text(_get(row, sources["id"]), "id") or str(row.index),
        question=question,
        answer=_answer(_get(row, sources["answer"])) or _reply(chat, sources["answer"]),
        images=_images(row, chat, columns, max_pixels),
        videos=_videos(row, chat, columns, max_pixels),
        solution=solution or None,
        choices=_choices(_get(row, sources["choices"])),
        source=row.where,
        meta=_meta(row.values, sources),
        system=system or None,
    )


def missing(row: RawRow, example: Example, columns: Mapping[str, str]) -> str | None:
    """Return why a row has no question or answer: the columns it has, and which look like an answer."""
    if not example.question.strip() and not _has_column("question", row.values, columns):
        return (
            f"empty question; the row has the columns {_listed(row.values)}; name it with columns: "
            "{question: …}"
        )
    if example.answer.strip() or _has_column("answer", row.values, columns):
        return None  # an empty value in the right column needs no advice on columns
    likely = [name for name, value in _leaves(row.values) if _LIKE_ANSWER.search(name) and str(value).strip()]
    advice = f"; {' and '.join(likely[:4])} may hold it" if likely else ""
    example_of = likely[0] if likely else "…"
    return (
        f"empty answer; the row has the columns {_listed(row.values)}{advice}; name it with columns: "
        f"{{answer: {example_of}}} (on the command line --column answer={example_of})"
    )


def _has_column(field: str, values: Values, columns: Mapping[str, str]) -> bool:
    return columns.get(field) in values or any(name in values for name in DEFAULTS[field])


def _listed(values: Values) -> str:
    names = sorted(map(str, values))
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _leaves(value: Any, name: str = "", depth: int = 4) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of each text or number in a row."""
    if isinstance(value, Mapping):
        inner: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        inner = enumerate(value[:4])
    else:
        if isinstance(value, (str, int, float)):
            yield name, value
        return
    for key, one in inner if depth else ():
        yield from _leaves(one, f"{name}.{key}" if name else str(key), depth - 1)


def _plain(value: Any) -> Any:
    """Return Python's number for a scalar of NumPy, and None for NaN, which stands for a missing value."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_empty(value: Any) -> bool:
    """Return whether a value stands for nothing: None, NaN, blank text, an empty list or object."""
    value = _plain(value)
    return value is None or (isinstance(value, (str, bytes, list, tuple, Mapping)) and not value)


def _media_values(
    field: Literal["images", "videos"],
    values: Values,
    chat: Chat | None,
    columns: Mapping[str, str],
    index: int,
) -> list[Any]:
    """Return the row's images or videos in order (paths, bytes, …), unopened."""
    in_chat = (chat.images if field == "images" else chat.videos) if chat else []
    if in_chat and all(one is not None for one in in_chat):
        return in_chat
    value = _lookup(values, _source(field, values, columns), index)
    several = isinstance(value, (list, tuple)) and not (field == "videos" and is_list_of_images(value))
    given = [
        one
        for one in (value if several else [value])
        if not _is_empty(one) and not (isinstance(one, str) and not one.strip())
    ]
    if in_chat:  # placeholders in the chat, whose images or videos are in a column
        rest = iter(given)
        return [next(rest, None) if one is None else one for one in in_chat] + list(rest)
    return given


def _images(
    row: RawRow, chat: Chat | None, columns: Mapping[str, str], max_pixels: int
) -> tuple[ImageRef, ...]:
    refs = []
    for number, value in enumerate(_media_values("images", row.values, chat, columns, row.index)):
        reload = None
        if row.reload is not None and is_embedded(value):
            reload = partial(_reload, "images", row.reload, columns, row.index, number)
        refs.append(image_ref(value, folder=row.folder, max_pixels=max_pixels, reload=reload))
    return tuple(refs)


def _videos(
    row: RawRow, chat: Chat | None, columns: Mapping[str, str], max_pixels: int
) -> tuple[VideoRef, ...]:
    values = _media_values("videos", row.values, chat, columns, row.index)
    names = ("video_start", "video_end", "video_fps")
    given = [_per_video(_get(row, _source(name, row.values, columns)), name, len(values)) for name in names]
    refs = []
    for number, (value, *times) in enumerate(zip(values, *given, strict=True)):
        reload = None
        if row.reload is not None:
            reload = partial(_reload, "videos", row.reload, columns, row.index, number)
        refs.append(video_ref(value, Clip(*times), folder=row.folder, max_pixels=max_pixels, reload=reload))
    return tuple(refs)


def _per_video(value: Any, what: str, videos: int) -> list[float | None]:
    """Return a number for each video: a list has one for each, a number is that of all."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * videos
    if len(values) != videos:
        raise DataError(f"{what} has {len(values)} numbers, but the row has {videos} videos")
    return [None if _is_empty(one) else seconds(one, what) for one in values]


def _reload(
    field: Literal["images", "videos"],
    reload: Callable[[], Values],
    columns: Mapping[str, str],
    index: int,
    number: int,
) -> Any:
    values = reload()
    return _media_values(field, values, _chat(values, columns), columns, index)[number]


def _chat(values: Values, columns: Mapping[str, str]) -> Chat | None:
    """Return the chat that holds the question; a question column named in the config takes precedence."""
    if "question" in columns:
        value = _lookup(values, columns["question"])
        return parse_chat(value) if isinstance(value, list) else None
    value = _lookup(values, _source("message", values, columns))
    if value is None:
        value = _lookup(values, _source("question", values, columns))
        value = value if isinstance(value, list) else None
    return None if value is None else parse_chat(value)


def _source(field: str, values: Values, columns: Mapping[str, str]) -> str | None:
    if field in columns:
        return columns[field]
    default = next((name for name in DEFAULTS[field] if values.get(name) is not None), None)
    if field == "answer" and not any(name in values for name in DEFAULTS["answer"]):
        # Several public data sets keep the gold answer here; a worked solution must never count as one.
        solution = values.get("solution")
        return "solution" if isinstance(solution, str) and _TAGGED.fullmatch(solution) else None
    return default


def _get(row: RawRow, source: str | None) -> Any:
    return _lookup(row.values, source, row.index)


def _lookup(values: Values, source: str | None, index: int = 0) -> Any:
    if source is None:
        return None
    if source in values:
        return values[source]
    if _BRACES.search(source):
        return _BRACES.sub(lambda match: _text(_lookup(values, match[1], index), match[1]), source)
    if source == "_row":
        return index
    value: Any = values
    for name in source.split("."):
        value = _step(value, name)
    return value


def _step(value: Any, name: str) -> Any:
    """Return the member of an object by name, or of a list by index (from its end if negative)."""
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, (list, tuple)) and re.fullmatch(r"-?\d+", name):
        index = int(name)
        return value[index] if -len(value) <= index < len(value) else None
    return None


def _text(value: Any, what: str) -> str:
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return _text(value[0], what)
    if isinstance(value, (str, int, float)):
        return str(value)
    raise DataError(
        f"{what} is a {type(value).__name__}, not a text or number; map it with columns: {{{what}: …}}"
    )


def _answer(value: Any) -> str:
    # A box or several: read by the rules for boxes.
    text = json.dumps(value) if _is_numbers(value) else _text(value, "answer")
    # The tags belong to the format that the model should write, not to the answer.
    tagged = _TAGGED.fullmatch(text)
    return (tagged[1] if tagged else text).strip()


def _is_numbers(value: Any) -> bool:
    """Return whether it is a list of several numbers, or a list of such lists."""
    if not isinstance(value, list) or not value or (len(value) == 1 and not isinstance(value[0], list)):
        return False
    return all(_is_numbers(one) if isinstance(one, list) else _is_number(one) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _reply(chat: Chat | None, source: str | None) -> str:
    """Return the answer in the assistant's turn of a row without any other: tagged, or a short line."""
    if chat is None or chat.solution is None or source is not None:
        return ""
    text = chat.solution.strip()
    is_answer = _TAGGED.fullmatch(text) or (len(text) <= REPLY_CHARACTERS and "\n" not in text)
    return _answer(text) if is_answer else ""


def _choices(value: Any) -> tuple[str, ...]:
    if _is_empty(value):
        return ()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise DataError(f"choices is a {type(value).__name__}, not a list; leave the column out or fix it")
    return tuple(_text(choice, "choices") for choice in value)


def _meta(values: Values, sources: Mapping[str, str | None]) -> dict[str, Any]:
    used = set(sources.values())
    default_names = {name for names in DEFAULTS.values() for name in names}
    return {
        name: value
        for name, value in values.items()
        if name not in used
        and (_is_plain(value) or (value is None and name not in default_names))
        and not (isinstance(value, (str, list)) and len(str(value)) > META_CHARACTERS)
    }


def _is_plain(value: Any) -> bool:
    """Return whether it is a scalar or (nested) lists of scalars (boxes, several accepted answers)."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str))
