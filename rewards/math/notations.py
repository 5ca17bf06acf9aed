"""Whole items in notations of their own: numbers in another base, chemical formulas, dots, sets in words."""

from __future__ import annotations

import re

from rewards.math.tree import Node, number, symbol

_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "sixteen": 16,
}  # fmt: skip
_BASED = re.compile(
    r"(-?)(?:\(([0-9A-Za-z]{1,40})\)|([0-9A-Z]{1,40}))\s*_\s*"
    r"(?:\{\s*(?:\\text\s*\{\s*)?(\w{1,7})\s*\}?\s*\}|(\d))"
)
_ELEMENTS = frozenset(
    [
        "H",
        "He",
        "Li",
        "Be",
        "B",
        "C",
        "N",
        "O",
        "F",
        "Ne",
        "Na",
        "Mg",
        "Al",
        "Si",
        "P",
        "S",
        "Cl",
        "Ar",
        "K",
        "Ca",
        "Sc",
        "Ti",
        "V",
        "Cr",
        "Mn",
        "Fe",
        "Co",
        "Ni",
        "Cu",
        "Zn",
        "Ga",
        "Ge",
        "As",
        "Se",
        "Br",
        "Kr",
        "Rb",
        "Sr",
        "Y",
        "Zr",
        "Nb",
        "Mo",
        "Tc",
        "Ru",
        "Rh",
        "Pd",
        "Ag",
        "Cd",
        "In",
        "Sn",
        "Sb",
        "Te",
        "I",
        "Xe",
        "Cs",
        "Ba",
        "La",
        "Ce",
        "Pr",
        "Nd",
        "Pm",
        "Sm",
        "Eu",
        "Gd",
        "Tb",
        "Dy",
        "Ho",
        "Er",
        "Tm",
        "Yb",
        "Lu",
        "Hf",
        "Ta",
        "W",
        "Re",
        "Os",
        "Ir",
        "Pt",
        "Au",
        "Hg",
        "Tl",
        "Pb",
        "Bi",
        "Po",
        "At",
        "Rn",
        "Fr",
        "Ra",
        "Ac",
        "Th",
        "Pa",
        "U",
        "Np",
        "Pu",
    ]
)
_ATOM = re.compile(r"([A-Z][a-z]?)(?:_?\{?(\d{0,4})\}?)")
_CHARGE = re.compile(r"\^\{?(\d?[+-])\}?")
_EMPTY = frozenset(
    ["no solution", "no solutions", "no real solution", "no real solutions", "empty set", "无解"]
)
_REALS = frozenset(
    [
        "all real numbers",
        "all reals",
        "any real number",
        "all real number",
        "every real number",
        "全体实数",
        "任意实数",
    ]
)
_SUBJECT = re.compile(r"^(?:there (?:is|are) |[a-z] (?:is|can be|=) |\w = )")
_OUT_OF = re.compile(r"(\d{1,9})\s+out\s+of\s+(\d{1,9})")
_DOTS = re.compile(r"\\ldots|\.{3}")


def in_base(text: str) -> Node | None:
    """Return the number of ``101_2``, ``(4210)_{7}``, ``FF_{16}``; None unless the digits are valid."""
    match = _BASED.fullmatch(text.strip(" $"))
    if not match:
        return None
    digits, name = match.group(2) or match.group(3), match.group(4) or match.group(5)
    base = _BASES.get(name, int(name) if name.isdigit() else 0)
    if not 2 <= base <= 36 or (len(digits) == 1 and not digits.isdigit()):
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return number(-value if match.group(1) else value)


def chemical(text: str) -> Node | None:
    r"""Return a chemical formula as one name, however it is set: H2O, ``H_2O``, ``\ce{H2O}``; or None.

    At least two elements, or one with a charge, and a count or charge or two letters somewhere.
    """
    text = text.strip(" $")
    marked = re.fullmatch(r"\\text\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", text)
    text = marked.group(1) if marked else text
    if not text[:1].isupper() or len(text) > 60:
        return None
    charge = _CHARGE.search(text)
    body = text[: charge.start()] if charge and charge.end() == len(text) else text
    atoms, position = [], 0
    while position < len(body):
        match = _ATOM.match(body, position)
        if not match or match.group(1) not in _ELEMENTS:
            return None
        atoms.append(match.group(1) + (match.group(2) or ""))
        position = match.end()
    telling = charge is not None or (len(atoms) > 1 and re.search(r"\d|[a-z]", body))
    if not atoms or not telling or (charge is None and "^" in text):
        return None
    return symbol("chemical " + "".join(atoms) + (f" {charge.group(1)}" if charge else ""))


def in_words(plain: str) -> Node | None:
    """Return the set that a text names in words: "no solution", "all real numbers"; else None."""
    core = _SUBJECT.sub("", plain)
    if core in _EMPTY:
        return symbol("emptyset")
    if core in _REALS:
        return Node("bracket", (Node("neg", (symbol("oo"),)), symbol("oo")), name="()")
    return None


def special(text: str, plain: str) -> Node | None:
    """Return the tree of an item in one of the notations of this module, or None."""
    if _DOTS.fullmatch(text.strip(" $")):
        return symbol("dots")
    share = _OUT_OF.fullmatch(plain) if "out" in plain else None
    if share:
        return Node("/", (number(int(share.group(1))), number(int(share.group(2)))))
    if "_" in text and (based := in_base(text)):
        return based
    if text[:1] in ("\\", "$") or text[:1].isupper():
        formula = chemical(text)
        if formula:
            return formula
    return in_words(plain) if plain[:1].isalpha() else None
