"""Another answer of the same form that surely differs from the gold answer."""

from __future__ import annotations

from rewards.attack.gold import Gold, in_prose

_OPPOSITES = (
    ("yes", "no"), ("true", "false"), ("increase", "decrease"), ("increasing", "decreasing"),
    ("left", "right"), ("above", "below"), ("linear", "nonlinear"), ("odd", "even"),
    ("positive", "negative"), ("parallel", "perpendicular"), ("surplus", "shortage"), ("red", "blue"),
    ("green", "yellow"), ("clockwise", "counterclockwise"), ("north", "south"), ("east", "west"),
)  # fmt: skip
OPPOSITE = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}
# The letter written where the options are unknown, in place of the gold one.
_LETTERS = "ABCD"


def other_answer(gold: Gold) -> str:
    """Return the bare text of an answer that differs from the gold one, of its form where possible."""
    if gold.right is not None:
        return _other_option(gold, gold.right)
    if gold.form == "number":
        return gold.sized(next_number(gold))
    if gold.form == "time":
        hour, minute = gold.bare.split(":")
        return f"{int(hour) % 12 + 1}:{minute}"
    if gold.form == "letter":
        return _LETTERS[(_LETTERS.find(gold.bare) + 1) % len(_LETTERS)]
    if gold.form == "words":
        lower = gold.bare.lower()
        return OPPOSITE.get(lower, "purple" if lower != "purple" else "orange")
    if gold.form == "equation" or (gold.form == "formula" and not gold.bare.startswith("-")):
        return f"{gold.bare}+1"
    return "1729" if "1729" not in gold.bare else "2027"


def shown_other(gold: Gold) -> str:
    """Return the other answer as a sentence would show it."""
    return in_prose(other_answer(gold))


def next_number(gold: Gold) -> str:
    """Return the text of the number that is one above the gold one."""
    value = (gold.value or 0) + 1
    if value.denominator == 1:
        return str(value.numerator)
    return f"{value.numerator}/{value.denominator}" if "." not in gold.number else f"{float(value):.12g}"


def option_letter(index: int) -> str:
    """Return the letter of an option."""
    return chr(ord("A") + index)


def _other_option(gold: Gold, right: int) -> str:
    index = (right + 1) % len(gold.choices)
    return option_letter(index) if gold.form == "letter" else gold.choices[index].strip().strip("$")
