"""An attack, and a gold answer as plain text with its form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

NUMBER = r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
FRACTION = r"-?(?:\d+/[1-9]\d*|\\[dt]?frac\{\d+\}\{[1-9]\d*\}|\\[dt]?frac\d[1-9])"
ITEM = re.compile(rf"{FRACTION}|{NUMBER}")
_NOTHING = re.compile(
    r"infty|∞|mathbb|\bR\b|real|undefined|exist|empty|varnothing|none|\bno\b|nothing|cannot|can't|impossible"
    r"|unknown|enough|determine|nan\b|null|\ball\b|neither|\bnot\b|never|both",
    re.IGNORECASE,
)


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
    if not ITEM.fullmatch(text):
        return None
    sign = -1 if text.startswith("-") else 1
    if "frac" in text or "/" in text:
        digits = re.findall(r"\d+", text)
        top, bottom = digits if len(digits) == 2 else (digits[0][0], digits[0][1])
        return sign * Fraction(int(top), int(bottom))
    return Fraction(text.replace(",", ""))
