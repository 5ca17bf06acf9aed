"""Gold answers read as plain text: what form one has, and another answer that surely differs from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

# Longer golds are solutions or descriptions; wrapping them in a sentence shows nothing.
LONGEST = 80
_NUMBER = r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_FRACTION = r"-?(?:\d+/[1-9]\d*|\\[dt]?frac\{\d+\}\{[1-9]\d*\}|\\[dt]?frac\d[1-9])"
_UNIT = (
    r"\\?%|°|\^\{?\\circ\}?|\\degree"
    r"|(?:\\(?:text|mathrm|rm)\{[~\s\\]*)?[a-zA-Z]{1,12}(?:\}?\^\{?[23]\}?|[²³])?\}?"
)
_SIZED = re.compile(rf"(\\?\$)?({_FRACTION}|{_NUMBER})\s*((?:{_UNIT})?)")
_ITEM = re.compile(rf"{_FRACTION}|{_NUMBER}")
_TIME = re.compile(r"(\d{1,2}):(\d{2})")
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ -][A-Za-z]+){0,3}")
_LETTER = re.compile(r"\(?([A-H])\)?\.?")
_RELATION = re.compile(r"<|>|\\leq?(?![a-z])|\\geq?(?![a-z])|\\n?eq?(?![a-z])|≤|≥|≠|\\leqslant|\\geqslant")
_BRACKETED = re.compile(r"(?:\\left)?\s*([\[(])([^()\[\]]+),([^()\[\],]+?)(?:\\right)?\s*([\])])")
# Golds that more than one answer fits, or whose reading is uncertain.
_OPEN = re.compile(
    r"not unique|not the only|any |e\.g\.|for example|such as|may vary|answers? var|\betc\b|for instance"
    r"|\\pm|±|\+\s*C\b|\\in\b|∈|approx|≈|\bor\b|\band\b|或|和|如|且|unknown|\.\.\.|\\l?dots",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"infty|∞|mathbb|\bR\b|real|undefined|exist|empty|varnothing|none|\bno\b|nothing|cannot|can't|impossible"
    r"|unknown|enough|determine|nan\b|null|\ball\b|neither|\bnot\b|never|both",
    re.IGNORECASE,
)
_SHORT_UNITS = frozenset(
    [
        "m",
        "g",
        "s",
        "h",
        "L",
        "J",
        "N",
        "W",
        "V",
        "cm",
        "mm",
        "km",
        "kg",
        "mg",
        "ml",
        "mL",
        "dm",
        "nm",
        "in",
        "ft",
        "yd",
        "mi",
        "lb",
        "oz",
        "hr",
        "kW",
        "kJ",
        "Hz",
        "Pa",
    ]
)
_NO_UNITS = re.compile(r"hundred|thousand|illion|dozen|third|half|halves|quarter|tenth|fifth|and|pi$|sqrt")


@dataclass(frozen=True)
class Attack:
    """A completion that must not pass.

    Attributes:
        kind: the family, such as "negation".
        completion: the model's complete text.
        why: why it is wrong for its gold answer, in words.
    """

    kind: str
    completion: str
    why: str


@dataclass(frozen=True)
class Gold:
    r"""A gold answer as plain text.

    Attributes:
        bare: without dollar signs around it, ``\boxed`` and a final stop.
        form: number, time, letter, words, list, bracket, relation, equation, formula, parts or other.
        value: of a number, without its unit.
        number: the text of the number.
        unit: the text before or after a number, empty if none.
        items: of a list, a bracket or parts.
        choices: the options' texts.
        right: the index of the right option, None if unknown.
    """

    bare: str
    form: str
    value: Fraction | None = None
    number: str = ""
    unit: str = ""
    items: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    right: int | None = None

    @property
    def shown(self) -> str:
        """Return it as a sentence would show it."""
        return in_prose(self.bare)

    @property
    def whole(self) -> int | None:
        """Return the value of an integer without a unit, else None."""
        plain = self.value is not None and self.value.denominator == 1 and not self.unit
        return int(self.value) if plain and self.value is not None else None

    @property
    def percent(self) -> bool:
        """Return whether it is a number of percent, which rules may equal to its hundredth."""
        return "%" in self.unit

    @property
    def says_nothing(self) -> bool:
        """Return whether it, or an option, speaks of no, all or undetermined answers."""
        return any(_NOTHING.search(text) for text in (self.bare, *self.choices))

    def sized(self, number: str) -> str:
        """Return another number with the unit of this one."""
        return f"{self.unit}{number}" if "$" in self.unit else f"{number}{self.unit}"


def in_prose(bare: str) -> str:
    """Return a formula between dollar signs, anything else as it is."""
    return f"${bare}$" if re.search(r"[\\^_{}]", bare) and "$" not in bare else bare


def fraction(text: str) -> Fraction | None:
    """Return the exact value of a number or a fraction of two integers, None for anything else."""
    if not _ITEM.fullmatch(text):
        return None
    sign = -1 if text.startswith("-") else 1
    if "frac" in text or "/" in text:
        digits = re.findall(r"\d+", text)
        top, bottom = digits if len(digits) == 2 else (digits[0][0], digits[0][1])
        return sign * Fraction(int(top), int(bottom))
    return Fraction(text.replace(",", ""))


def bare_text(answer: str) -> str:
    """Return a gold answer without what surrounds it."""
    text = answer.strip()
    for mark in ("$$", "$"):
        inner = text.rstrip(".")[len(mark) : -len(mark)]
        if text.startswith(mark) and text.rstrip(".").endswith(mark) and "$" not in inner and inner.strip():
            text = inner.strip()
    if text.startswith("\\(") and text.endswith("\\)"):
        text = text[2:-2].strip()
    boxed = re.fullmatch(r"\\boxed\{([^{}]*)\}", text)
    text = boxed.group(1).strip() if boxed else text
    return text[:-1].rstrip() if text.endswith(".") and not re.search(r"\d\.\d", text) else text


def read_gold(answer: str, choices: Sequence[str] = ()) -> Gold | None:
    """Return a gold answer with its form, or None for an open, empty or unreadable one."""
    bare = bare_text(answer)
    if not bare or (_OPEN.search(answer) and not choices) or re.search(r"\d\.\d+\.", answer):
        return None
    right = _right_option(bare, choices)
    options = tuple(choices) if right is not None else ()
    if choices and right is None:
        return None
    if _LETTER.fullmatch(bare) and (options or len(bare.strip("().")) == 1):
        letter = _LETTER.fullmatch(bare)
        return Gold(letter.group(1) if letter else bare, "letter", choices=options, right=right)
    if _OPEN.search(answer):
        return Gold(bare, "other", choices=options, right=right)
    return _with_form(bare, options, right)


def _right_option(bare: str, choices: Sequence[str]) -> int | None:
    texts = [text.strip() for text in choices]
    if texts.count(bare) == 1:
        return texts.index(bare)
    letter = _LETTER.fullmatch(bare)
    index = ord(letter.group(1)) - ord("A") if letter else len(texts)
    return index if index < len(texts) else None


def _with_form(bare: str, choices: tuple[str, ...], right: int | None) -> Gold:
    sized = _SIZED.fullmatch(bare)
    if sized and not (sized.group(1) and sized.group(3)) and _is_unit(sized.group(3)):
        unit = sized.group(1) or bare[sized.end(2) :]
        number = sized.group(2)
        return Gold(bare, "number", fraction(number), number, unit, choices=choices, right=right)
    form, items = _form(bare)
    return Gold(bare, form, items=items, choices=choices, right=right)


def _is_unit(text: str) -> bool:
    """Return whether the text behind a number is a unit or a noun; "x" in 2x is a letter."""
    word = "".join(re.findall(r"[A-Za-z]+", re.sub(r"\\\\(?:text|mathrm|rm|circ|degree)", "", text)))
    if len(word) <= 2:
        return not word or word in _SHORT_UNITS
    return not _NO_UNITS.search(word)


def _form(bare: str) -> tuple[str, tuple[str, ...]]:
    time = _TIME.fullmatch(bare)
    if time and 1 <= int(time.group(1)) <= 12 and int(time.group(2)) < 60:
        return "time", ()
    if _WORDS.fullmatch(bare):
        return "words", ()
    if "\n" in bare or re.match(r"\(1\)", bare):
        return _parts(bare)
    if (
        "$" in bare
        or len(bare) > LONGEST
        or re.search(r"[A-Za-z]{3}|[^\x00-\x7f√π°≤≥≠]", _commands_out(bare))
    ):
        return "other", ()
    items = tuple(part.strip() for part in re.split(r"[,;]", bare))
    if len(items) > 1 and all(_ITEM.fullmatch(item) for item in items):
        return "list", items
    bracketed = _BRACKETED.fullmatch(bare)
    if bracketed:
        return "bracket", tuple(part.strip() for part in bracketed.groups())
    if "," in bare or ";" in bare or ":" in bare:
        return "other", ()
    if _RELATION.search(bare):
        return "relation", ()
    return ("equation", ()) if bare.count("=") == 1 else ("other", ()) if "=" in bare else ("formula", ())


def _commands_out(bare: str) -> str:
    return re.sub(r"\\[a-zA-Z]+", " ", bare)


def _parts(bare: str) -> tuple[str, tuple[str, ...]]:
    cut = re.split(r"\n+" if "\n" in bare else r"\s*\(\d\)\s*", bare)
    parts = tuple(part.strip() for part in cut if part.strip())
    short = len(parts) > 1 and len(bare) <= 3 * LONGEST
    return ("parts", parts) if short else ("other", ())
