"""Rows whose prompt is a chat: the reference project's ``message`` and its kin.

A message is ``{"role": …, "content": …}`` (or ``{"from": …, "value": …}``); its content is a text or a list
of parts ``{"type": "text", "text": …}`` and ``{"type": "image", "image": …}``. The chat may be JSON-encoded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.errors import DataError
from data.markers import MARKER

_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Chat:
    """What a chat says: the user's one turn, and the assistant's answer to it where there is one."""

    question: str
    images: list[Any]
    solution: str | None
    system: str | None


def parse_chat(value: Any) -> Chat:
    """Read a chat with one user turn. Raises ``DataError`` that says what is wrong with it."""
    turns: dict[str, list[tuple[str, list[Any]]]] = {"system": [], "user": [], "assistant": []}
    for message in _messages(value):
        role = str(message.get("role") or message.get("from"))
        role = _ROLES.get(role, role)
        if role not in turns:
            raise DataError(f"message has the role {role!r}; known are {', '.join(turns)}")
        turns[role].append(_content(message.get("content", message.get("value"))))
    if len(turns["user"]) != 1 or len(turns["assistant"]) > 1:
        raise DataError(f"message has {len(turns['user'])} user turns; exactly one question is supported")
    question, images = turns["user"][0]
    solution, system = (turns[role][0][0] if turns[role] else None for role in ("assistant", "system"))
    return Chat(question, images, solution, system)


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


def _content(content: Any) -> tuple[str, list[Any]]:
    """Return text and images; images that do not come before all text leave a marker at their place."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise DataError(f"message content is {type(content).__name__}; use a text or a list of parts")
    parts = [_part(part) for part in content]
    texts = [text for text, _ in parts if text is not None]
    images = [image for text, image in parts if text is None]
    images_first = all(text is None for text, _ in parts[: len(images)])
    if images_first or any(MARKER.search(text) for text in texts):
        return "".join(texts), images
    return "".join("<image>" if text is None else text for text, _ in parts), images


def _part(part: Any) -> tuple[str | None, Any]:
    """Return (text, None) or (None, image)."""
    if isinstance(part, str):
        return part, None
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"], None
    if kind == "image":
        return None, part.get("image")
    if kind == "image_url":
        return None, part.get("image_url")
    raise DataError(f"message has a part of type {kind!r}; known are text, image and image_url")
