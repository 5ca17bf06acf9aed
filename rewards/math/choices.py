"""Options that a text names, by letter, by the option's words or by its value."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.math.bounds import MAX_CHARS, Unreadable
from rewards.math.clean import clean, plain_text
from rewards.math.decide import decide_cheaply

_LETTER = re.compile(
    r"^(?:option|choice|answer|选项?)?\s*[(\[]?\s*([A-Za-z])\s*(?:[)\].:]+(?P<rest>.*)|[)\]]?)$",
    re.DOTALL | re.IGNORECASE,
)
_JOINED = re.compile(r"[\s,;/&]*(?:(?:and|or|和|或)\b)?[\s,;/&]*[(\[]?([A-Z])(?![A-Za-z])[)\].:]*")
_RUN = re.compile(r"[A-Z]{2,8}")
_PREFIX = re.compile(r"^\s*[(\[]?([A-Z])\s*[)\].:]\s*")
_SEVERAL_GOLD = re.compile(r"[(\[]?[A-H](?:\s*[,;\s]\s*[A-H])+[)\]]?|[A-H]{3,8}")
_LONE_GOLD = re.compile(r"[(\[]?\s*([A-J])\s*[)\]]?\s*\.?")


def _cleaned(text: str) -> str:
    text = re.sub(r"\\text\s*\{([^{}]*)\}|\$", lambda m: f" {m.group(1) or ''} ", clean(text[:MAX_CHARS]))
    return re.sub(r"\s+", " ", text.replace("{", "").replace("}", "")).strip()


def _joined(text: str) -> frozenset[str]:
    """Return the letters at the start, joined by commas, "and", "or" or nothing: "(A), (B), and (C)"."""
    letters, position = set(), 0
    while match := _JOINED.match(text, position):
        letters.add(match.group(1))
        position = match.end()
    return frozenset(letters)


def letters_in(text: str) -> frozenset[str]:
    """Return the option letters that ``text`` names: "B", "(b)", "B. 12 cm", "A and C", "ACD"; or none."""
    text = _cleaned(text)
    if _RUN.fullmatch(text) and list(text) == sorted(set(text)):
        return frozenset(text)
    several = _joined(text)
    if len(several) > 1:
        return several
    single = _LETTER.match(text)
    return frozenset(single.group(1).upper()) if single else frozenset()


def _option_texts(choices: Sequence[str]) -> list[str]:
    """Return the options without their prefixes "A." if all of them have one."""
    marks = [_PREFIX.match(choice) for choice in choices]
    if all(mark and mark.group(1) == chr(65 + i) for i, mark in enumerate(marks)):
        return [choice[mark.end() :] if mark else choice for mark, choice in zip(marks, choices, strict=True)]
    return list(choices)


def _equal_value(text: str, option: str) -> bool:
    try:
        return bool(decide_cheaply(text, option))
    except Unreadable:
        return False


def find_options(text: str, choices: Sequence[str]) -> frozenset[int]:
    """Return the indices of the options that ``text`` names; empty if it names none.

    An option's words take precedence over its letter, as options may be letters themselves.
    """
    options = _option_texts(choices)
    plain = plain_text(text[:MAX_CHARS])
    same = [i for i, option in enumerate(options) if plain_text(option) == plain]
    if same:
        return frozenset(same[:1])
    letters = letters_in(text)
    indices = frozenset(ord(letter) - 65 for letter in letters)
    if letters and max(indices) < len(options):
        return indices
    equal = [i for i, option in enumerate(options) if _equal_value(text, option)]
    return frozenset(equal[:1])


def gold_letters(gold: str) -> frozenset[str]:
    """Return the letters of a gold answer that consists of option letters: "B", "(B)", "A, C, D", "ACD"."""
    text = _cleaned(gold)
    match = _LONE_GOLD.fullmatch(text)
    if match:
        return frozenset(match.group(1))
    return letters_in(text) if _SEVERAL_GOLD.fullmatch(text) else frozenset()


def option_letters(indices: frozenset[int]) -> str:
    """Return the options' letters for a message."""
    return " and ".join(chr(65 + i) for i in sorted(indices))
