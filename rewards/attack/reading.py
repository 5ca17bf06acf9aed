"""Reading of a gold answer as plain text: its form, or that it is too open to be attacked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.attack.gold import FRACTION, ITEM, NUMBER, Gold, fraction

# Longer golds are solutions or descriptions; wrapping them in a sentence shows nothing.
LONGEST = 80
# No gold answer is that long; nothing is searched in a longer text.
MAX_CHARS = 2000
_UNIT = (
    r"\\?%|°|\^\{?\\circ\}?|\\degree"
    r"|(?:\\(?:text|mathrm|rm)\{[~\s\\]*)?[a-zA-Z]{1,12}(?:\}?\^\{?[23]\}?|[²³])?\}?"
)
_SIZED = re.compile(rf"(\\?\$)?({FRACTION}|{NUMBER})\s*((?:{_UNIT})?)")
_SPAN = re.compile(r"(\d{1,4})\s*-\s*(\d{1,4})")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})|(\d{1,2})/(\d{1,2})/(\d{4})")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])|±")
_EQUATION = re.compile(r"\s*[a-zA-Z]\w?(?:\([a-z]\))?\s*=[^=]+")
_TIME = re.compile(r"(\d{1,2}):(\d{2})")
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ -][A-Za-z]+){0,3}")
_LETTER = re.compile(r"\(?([A-H])\)?\.?")
_RELATION = re.compile(r"<|>|\\leq?(?![a-z])|\\geq?(?![a-z])|\\n?eq?(?![a-z])|≤|≥|≠|\\leqslant|\\geqslant")
_BRACKETED = re.compile(r"(?:\\left)?\s*([\[(])([^()\[\]]+),([^()\[\],]+?)(?:\\right)?\s*([\])])")
# Golds that more than one answer fits, or whose reading is uncertain.
_OPEN = re.compile(
    r"not unique|not the only|any |e\.g\.|for example|such as|may vary|answers? var|\betc\b|for instance"
    r"|\+\s*C\b|\\in\b|∈|approx|≈|\bor\b|\band\b|或|和|如|且|unknown|\.\.\.|\\l?dots",
    re.IGNORECASE,
)
_SHORT_UNITS = {
    "m", "g", "s", "h", "L", "J", "N", "W", "V", "cm", "mm", "km", "kg", "mg", "ml", "mL", "dm", "nm", "in",
    "ft", "yd", "mi", "lb", "oz", "hr", "kW", "kJ", "Hz", "Pa",
}  # fmt: skip
_NO_UNITS = re.compile(r"hundred|thousand|illion|dozen|third|half|halves|quarter|tenth|fifth|and|pi$|sqrt")


def bare_text(answer: str) -> str:
    """Return a gold answer without what surrounds it."""
    text = answer.strip()
    for mark in ("$$", "$"):
        inner = text.rstrip(".")[len(mark) : -len(mark)]
        if text.startswith(mark) and text.rstrip(".").endswith(mark) and "$" not in inner and inner.strip():
            text = inner.strip()
    if text.startswith("\\(") and text.endswith("\\)"):
        text = text[2:-2].strip()
    boxed = re.fullmatch(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", text)
    text = boxed.group(1).strip() if boxed else text
    return text[:-1].rstrip() if text.endswith(".") and not re.search(r"\d\.\d", text) else text


def read_gold(answer: str, choices: Sequence[str] = ()) -> Gold | None:
    """Return a gold answer with its form, or None for an open, empty or unreadable one."""
    if len(answer) > MAX_CHARS:
        return None
    bare = bare_text(answer)
    if not bare or (_OPEN.search(answer) and not choices) or re.search(r"\d\.\d+\.", answer):
        return None
    right = _right_option(bare, choices)
    options = tuple(choices) if right is not None else ()
    if choices and (right is None or _named_by_letters(choices)):
        return None
    if _LETTER.fullmatch(bare) and (options or len(bare.strip("().")) == 1):
        letter = _LETTER.fullmatch(bare)
        return Gold(letter.group(1) if letter else bare, "letter", choices=options, right=right)
    if _OPEN.search(answer):
        return Gold(bare, "other", choices=options, right=right)
    return _with_form(bare, options, right)


def _named_by_letters(choices: Sequence[str]) -> bool:
    """Return whether an option's text is the letter of another: "B" then names two options."""
    plain = [re.sub(r"[\s$\\{}~]|text|mathrm", "", text) for text in choices]
    return any(
        len(text) == 1 and text.isupper() and text != chr(ord("A") + index)
        for index, text in enumerate(plain)
    )


def _right_option(bare: str, choices: Sequence[str]) -> int | None:
    texts = [text.strip() for text in choices]
    if texts.count(bare) == 1:
        return texts.index(bare)
    letter = _LETTER.fullmatch(bare)
    index = ord(letter.group(1)) - ord("A") if letter else len(texts)
    return index if index < len(texts) else None


def _with_form(bare: str, choices: tuple[str, ...], right: int | None) -> Gold:
    sized = _SIZED.fullmatch(bare) if len(bare) <= LONGEST else None
    if sized and not (sized.group(1) and sized.group(3)) and _is_unit(sized.group(3)):
        unit = sized.group(1) or bare[sized.end(2) :]
        number = sized.group(2)
        return Gold(bare, "number", fraction(number), number, unit, choices=choices, right=right)
    form, items = _form(bare)
    return Gold(bare, form, items=items, choices=choices, right=right)


def _is_unit(text: str) -> bool:
    """Return whether the text behind a number is a unit or a noun; "x" in 2x is a letter."""
    word = "".join(re.findall(r"[A-Za-z]+", re.sub(r"\\(?:text|mathrm|rm|circ|degree)", "", text)))
    if len(word) <= 2:
        return not word or word in _SHORT_UNITS
    return not _NO_UNITS.search(word)


def _form(bare: str) -> tuple[str, tuple[str, ...]]:
    time = _TIME.fullmatch(bare)
    if time and 1 <= int(time.group(1)) <= 12 and int(time.group(2)) < 60:
        return "time", ()
    if _WORDS.fullmatch(bare):
        return "words", ()
    spans = _span_or_date(bare)
    if spans:
        return spans
    if "\n" in bare or re.match(r"\(1\)", bare):
        return _parts(bare)
    if (
        "$" in bare
        or len(bare) > LONGEST
        or re.search(r"[A-Za-z]{3}|[^\x00-\x7f√π°≤≥≠]", _commands_out(bare))
    ):
        return "other", ()
    items = tuple(part.strip() for part in re.split(r"[,;]", bare))
    if len(items) > 1 and all(ITEM.fullmatch(item) for item in items):
        return "list", items
    bracketed = _BRACKETED.fullmatch(bare)
    if bracketed:
        return "bracket", tuple(part.strip() for part in bracketed.groups())
    equations = tuple(part.strip() for part in re.split(r"\\q?quad|[,;]", bare))
    if len(equations) > 1 and all(_EQUATION.fullmatch(part) for part in equations):
        return "assignments", equations
    if _PLUS_MINUS.search(bare):
        return (
            ("plus-minus", ()) if len(_PLUS_MINUS.findall(bare)) == 1 and "," not in bare else ("other", ())
        )
    if "," in bare or ";" in bare or ":" in bare:
        return "other", ()
    if _RELATION.search(bare):
        return "relation", ()
    return ("equation", ()) if bare.count("=") == 1 else ("other", ()) if "=" in bare else ("formula", ())


def _span_or_date(bare: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the form and the parts of a rising span or a date; 9-4 may be a score or a difference."""
    span, date = _SPAN.fullmatch(bare), _DATE.fullmatch(bare)
    if span and int(span.group(1)) < int(span.group(2)):
        return "span", span.groups()
    return ("date", tuple(part for part in date.groups() if part)) if date else None


def _commands_out(bare: str) -> str:
    return re.sub(r"\\[a-zA-Z]+", " ", bare)


def _parts(bare: str) -> tuple[str, tuple[str, ...]]:
    cut = re.split(r"\n+" if "\n" in bare else r"\s*\(\d\)\s*", bare)
    parts = tuple(part.strip() for part in cut if part.strip())
    short = len(parts) > 1 and len(bare) <= 3 * LONGEST
    return ("parts", parts) if short else ("other", ())
