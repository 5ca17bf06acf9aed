"""Wording of the judges' prompts, read from ``prompts/``; ``prompts/NOTICE.txt`` says whose it is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "prompts"
_PLACE = re.compile(r"\{(question|gold|answer|response)\}")
# Longer texts are cut at their start; a final answer is at the end.
MAX_CHARS = 20_000


@cache
def wording(name: str) -> str:
    """Return the text of a prompt with its places, as ``{question}``."""
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def filled(name: str, **texts: str) -> str:
    """Return a prompt with the texts in their places; braces within a text are left alone.

    Args:
        name: of the file in ``prompts/``, without suffix.
        texts: the text of each place, of which the last ``MAX_CHARS`` characters are used.
    """
    return _PLACE.sub(lambda place: texts[place[1]][-MAX_CHARS:], wording(name))
