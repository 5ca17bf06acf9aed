r"""Usual forms of a right answer: completions that state a gold answer and that any verifier should accept.

They are built from the gold's text alone: the same text in ``\boxed``, in bold, in a sentence, …, and other
spellings of it that say the same without doubt, such as ``\frac{1}{2}`` and ``0.5`` for ``1/2``. A form that
does not apply to a gold answer is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rewards.gold_kinds import LETTER, LETTER_AND_TEXT, LETTERED, OPTION, WORDS, list_kind
from rewards.math.choices import find_options

# Longer gold answers are not put into a sentence.
_LONGEST = 80
_FORMULA = re.compile(r"\$([^$]+)\$|\\\((.+)\\\)", re.DOTALL)
_SENTENCES = re.compile(r"[.!?]\s|[.!?。]$|\n")
_INTEGER = re.compile(r"-?\d{1,15}")
_SEPARATED = re.compile(r"-?\d{1,3}(?:,\d{3}){1,4}")
_DECIMAL = re.compile(r"(-?)(\d{1,9})\.(\d{1,4})")
_FRACTION = re.compile(r"(-?)(?:(\d{1,9})/(\d{1,9})|\\[dt]?frac\{(\d{1,9})\}\{(\d{1,9})\})")
_PERCENT = re.compile(r"(-?\d[\d.]{0,9})\s?\\?%")
_DEGREES = re.compile(r"(-?\d[\d.]{0,9})\s?(?:°|\^\{?\\circ\}?)")
_QUANTITY = re.compile(r"(-?\d[\d,.]{0,15}(?<=\d))\s?([A-Za-zΩ][A-Za-z /²³^23]{0,30}(?<! ))")
_SOLUTION = re.compile(r"[A-Za-z]\s?=\s?(-?\d[\d.,/]{0,15}(?<=[\d]))")
_TIME = re.compile(r"(1[0-2]|0?[1-9]):([0-5]\d)\s?([ap])\.?\s?m\.?", re.IGNORECASE)
_SET = re.compile(r"\\\{([^{}()\\\[\]]{1,60})\\\}")
_PIECES = re.compile(r"\s*,\s+|\s+and\s+")
_ALTERNATIVES = re.compile(r"\s+or\s+")
_PLAIN_PIECE = re.compile(r"[^\[\](){},;]{1,40}")
_PREFIX = re.compile(r"\s*[(\[]?([A-Z])\s*[)\].:]\s*")
_WITH_FORMULA = ("words", "time", "percentage", "unit", "things", "letter", "option")


@dataclass(frozen=True)
class RightAnswer:
    """A completion that is right for a gold answer, and the name of its form."""

    form: str
    completion: str


def right_answers(
    gold: str, kind: str, choices: Sequence[str] = (), *, spellings: bool = True
) -> list[RightAnswer]:
    """Return completions in usual forms that are right for a gold answer.

    Args:
        gold: the gold answer.
        kind: its kind, from ``gold_kind``.
        choices: the options' texts, empty for a free-form question.
        spellings: also spell the answer differently; False only states its text in different places, for
            rules that compare texts.
    """
    found = list(_places(gold.strip(), kind))
    if spellings and kind == OPTION:
        found += _option_forms(gold, choices)
    elif spellings and kind in (LETTER, LETTER_AND_TEXT):
        found += _letter_forms(gold.strip(), kind)
    elif spellings:
        bare = _bare(gold.strip())
        found += [
            RightAnswer(form, rf"\boxed{{{text}}}") for form, text in _spellings(bare, kind) if text != bare
        ]
    return found


def _bare(gold: str) -> str:
    """Return a gold answer that is one formula without its dollar signs, any other unchanged."""
    match = _FORMULA.fullmatch(gold)
    return (match[1] or match[2]).strip() if match else gold


def _places(gold: str, kind: str) -> Iterator[RightAnswer]:
    """Yield the same text in the places where answers are stated."""
    yield RightAnswer("<answer>…</answer>", f"<answer>{gold}</answer>")
    if not gold or "boxed" in gold or "\n" in gold:
        return
    bare = _bare(gold)
    if "$" not in bare and bare.count("{") == bare.count("}"):
        yield RightAnswer(r"\boxed{…}", rf"So we get \boxed{{{bare}}}.")
    if len(gold) > _LONGEST or _SENTENCES.search(gold):
        return
    yield RightAnswer("The answer is ….", f"The answer is {gold}.")
    if "*" not in gold:
        yield RightAnswer("**…**", f"Therefore, **{gold}**")
    if "$" not in bare and not any(word in kind for word in _WITH_FORMULA):
        yield RightAnswer("The answer is $…$.", f"The answer is ${bare}$.")


def _option_forms(gold: str, choices: Sequence[str]) -> Iterator[RightAnswer]:
    picked = find_options(gold, choices)
    marks = [_PREFIX.match(choice) for choice in choices]
    prefixed = all(mark and mark[1] == chr(65 + i) for i, mark in enumerate(marks))
    texts = [
        choice[mark.end() :] if prefixed and mark else choice
        for mark, choice in zip(marks, choices, strict=True)
    ]
    if len(picked) != 1:
        return
    (index,) = picked
    letter, text = chr(65 + index), texts[index].strip()
    yield from _by_letter(letter)
    # An option whose text is a letter, or is another's too, is not named by its text.
    if len(text) > _LONGEST or len(text) < 2 or texts.count(texts[index]) > 1 or _SENTENCES.search(text):
        return
    yield from _with_text(letter, text)


def _letter_forms(gold: str, kind: str) -> Iterator[RightAnswer]:
    match = LETTERED.fullmatch(gold)
    if kind == LETTER_AND_TEXT and match:
        yield from _by_letter(match[1] or match[2])
        if len(match[3]) <= _LONGEST and not _SENTENCES.search(match[3]):
            yield from _with_text(match[1] or match[2], match[3].strip())
    elif kind == LETTER:
        yield from _by_letter(gold.strip("()[]$. "))


def _by_letter(letter: str) -> Iterator[RightAnswer]:
    if not re.fullmatch("[A-Z]", letter):
        return
    yield RightAnswer("the letter", rf"\boxed{{{letter}}}")
    yield RightAnswer("the letter in brackets", f"The answer is ({letter}).")
    yield RightAnswer("The correct option is ….", f"The correct option is {letter}.")


def _with_text(letter: str, text: str) -> Iterator[RightAnswer]:
    yield RightAnswer("letter (text)", f"The answer is {letter} ({text}).")
    yield RightAnswer("letter. text", f"<answer>{letter}. {text}</answer>")
    yield RightAnswer("the option's text", f"<answer>{text}</answer>")


def _spellings(bare: str, kind: str) -> Iterator[tuple[str, str]]:
    """Yield other spellings of a free-form gold answer, with their forms' names."""
    yield from _of_numbers(bare)
    yield from _of_quantities(bare, kind)
    yield from _of_lists(bare, kind)
    if match := _SOLUTION.fullmatch(bare):
        yield "the value of an equation", match[1]
    if match := _TIME.fullmatch(bare):
        yield "PM", f"{match[1]}:{match[2]} {match[3].upper()}M"
        yield "24 hours", f"{int(match[1]) % 12 + (12 if match[3] in 'pP' else 0)}:{match[2]}"
    if kind == WORDS:
        yield "in lower case", bare.lower()
        return
    if r"\frac" in bare:
        yield r"\dfrac", bare.replace(r"\frac", r"\dfrac")
    if "(" in bare and r"\left" not in bare and r"\right" not in bare and bare.count("(") == bare.count(")"):
        yield r"\left( \right)", bare.replace("(", r"\left(").replace(")", r"\right)")
    yield "exponents in braces", re.sub(r"(?<=[A-Za-z)])\^(\d)(?!\d)", r"^{\1}", bare)


def _of_numbers(bare: str) -> Iterator[tuple[str, str]]:
    if _INTEGER.fullmatch(bare) and abs(int(bare)) >= 1000 and bare.lstrip("-")[0] != "0":
        yield "thousands separators", f"{int(bare):,}"
    if _SEPARATED.fullmatch(bare):
        yield "without separators", bare.replace(",", "")
    if match := _DECIMAL.fullmatch(bare):
        value = Fraction(f"{match[2]}.{match[3]}")
        if value.denominator > 1:
            yield "as a fraction", rf"{match[1]}\frac{{{value.numerator}}}{{{value.denominator}}}"
    match = _FRACTION.fullmatch(bare)
    if match and int(match[3] or match[5]):
        yield from _of_fractions(match[1], int(match[2] or match[4]), int(match[3] or match[5]))


def _of_fractions(sign: str, above: int, below: int) -> Iterator[tuple[str, str]]:
    yield r"\frac{a}{b}", rf"{sign}\frac{{{above}}}{{{below}}}"
    yield "a/b", f"{sign}{above}/{below}"
    value = Fraction(above, below)
    if 10**6 % value.denominator == 0:  # at most six decimals
        decimals = f"{above / below:.6f}".rstrip("0").rstrip(".")
        yield "as a decimal", f"{sign}{decimals}"
    whole, rest = divmod(above, below)
    if whole and rest:
        yield "mixed number", rf"{sign}{whole}\frac{{{rest}}}{{{below}}}"


def _of_quantities(bare: str, kind: str) -> Iterator[tuple[str, str]]:
    if match := _PERCENT.fullmatch(bare):
        yield r"\%", rf"{match[1]}\%"
        yield "percent", rf"{match[1]}\text{{ percent}}"
    elif match := _DEGREES.fullmatch(bare):
        yield r"^\circ", rf"{match[1]}^\circ"
        yield "°", f"{match[1]}°"
        yield "without its unit", match[1]
    elif kind in ("quantity with unit", "number of things") and (match := _QUANTITY.fullmatch(bare)):
        yield "without its unit", match[1]
        yield r"unit in \text", rf"{match[1]}\text{{ {match[2]}}}"


def _of_lists(bare: str, kind: str) -> Iterator[tuple[str, str]]:
    if match := _SET.fullmatch(bare):
        members = [member.strip() for member in match[1].split(",")]
        yield "set in another order", rf"\{{{', '.join(reversed(members))}\}}"
    pieces, either = _PIECES.split(bare), _ALTERNATIVES.split(bare)
    if kind == list_kind(len(pieces), True) and all(map(_PLAIN_PIECE.fullmatch, pieces)):
        yield "joined by and", rf"{', '.join(pieces[:-1])} \text{{ and }} {pieces[-1]}"
        yield "joined by semicolons", "; ".join(pieces)
    if kind == list_kind(len(either), False) and all(map(_PLAIN_PIECE.fullmatch, either)):
        yield "values in another order", r" \text{ or } ".join(reversed(either))
