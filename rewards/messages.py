"""Text helpers for messages: the names nearest to a misspelt one, and long texts on one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name most similar to ``name``, or None if none reaches ``cutoff`` (0 to 1)."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: up to three similar names, or else all known ones."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return (
        f"did you mean {' or '.join(map(repr, close))}?" if close else f"known are {', '.join(sorted(known))}"
    )


def short(text: str, limit: int = 80, keep: int | None = None, *, end: bool = False) -> str:
    """Return ``text`` on one line; if longer than ``limit``, cut and marked by an ellipsis.

    Args:
        text: any text; runs of white space become single spaces.
        limit: the longest text that stays whole.
        keep: how many characters of a longer one are kept; ``limit - 1`` if None.
        end: keep the last characters instead of the first.
    """
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    keep = limit - 1 if keep is None else keep
    return "…" + line[-keep:] if end else line[:keep] + "…"
