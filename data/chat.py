"""Rows that hold a chat: one question with its images and videos, and the assistant's reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.example import MARKER, VIDEO_MARKER, DataError

_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Chat:
    """Content of a chat: the single user turn, and the assistant's reply and the system turn where given."""

    question: str
    images: list[Any]
    videos: list[Any]
    solution: str | None
    system: str | None


def parse_chat(value: Any) -> Chat:
    """Parse a chat with one user turn. Raises ``DataError`` for any other form."""
    turns: dict[str, list[tuple[str, list[Any], list[Any]]]] = {"system": [], "user": [], "assistant": []}
    for message in _messages(value):
        role = str(message.get("role") or message.get("from"))
        role = _ROLES.get(role, role)
        if role not in turns:
            raise DataError(f"message has the role {role[:40]!r}; the known roles are {', '.join(turns)}")
        turns[role].append(_content(message.get("content", message.get("value"))))
    if len(turns["user"]) != 1 or len(turns["assistant"]) > 1:
        raise DataError(f"message has {len(turns['user'])} user turns; exactly one question is supported")
    question, images, videos = turns["user"][0]
    solution, system = (turns[role][0][0] if turns[role] else None for role in ("assistant", "system"))
    return Chat(question, images, videos, solution, system)


def _messages(value: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"message is not JSON: {error}") from error
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise DataError("message is not a chat: a list of objects with role and content")
    return messages


def _content(content: Any) -> tuple[str, list[Any], list[Any]]:
    """Return text, images and videos; one that does not precede all text leaves a marker at its position."""
    if isinstance(content, str):
        return content, [], []
    if not isinstance(content, list):
        raise DataError(f"message content is {type(content).__name__}; use a text or a list of content items")
    items = [_content_item(item) for item in content]
    texts = [value for kind, value in items if kind == "text"]
    images = [value for kind, value in items if kind == "image"]
    videos = [value for kind, value in items if kind == "video"]
    kinds = [kind for kind, _ in items]
    first = ["image"] * len(images) + ["video"] * len(videos)
    marked = any(MARKER.search(text) or VIDEO_MARKER.search(text) for text in texts)
    if kinds[: len(first)] == first or marked:
        return "".join(texts), images, videos
    return "".join(value if kind == "text" else f"<{kind}>" for kind, value in items), images, videos


def _content_item(item: Any) -> tuple[str, Any]:
    """Return the kind (text, image or video) and the text, image or video."""
    if isinstance(item, str):
        return "text", item
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "text" and isinstance(item.get("text"), str):
        return "text", item["text"]
    if kind == "image":
        return "image", item.get("image", item.get("url", item.get("path")))
    if kind == "image_url":
        return "image", item.get("image_url")
    if kind == "video":
        return "video", _video(item)
    if kind == "video_url":
        return "video", item.get("video_url")
    raise DataError(
        f"message has a content item of type {str(kind)[:40]!r}; known are text, image, image_url, video and "
        "video_url"
    )


def _video(item: Mapping[str, Any]) -> Any:
    """Return the video of an item, with the times beside it as qwen-vl-utils names them."""
    value = item.get("video", item.get("url", item.get("path")))
    names = ("video_start", "video_end", "sample_fps", "fps")
    beside = {name: item[name] for name in names if item.get(name) is not None}
    # Beside a file, fps is how densely to read it, which the config decides.
    if not isinstance(value, (list, tuple)):
        beside.pop("fps", None)
    if value is None or not beside:
        return value
    return {**(value if isinstance(value, Mapping) else {"video": value}), **beside}
