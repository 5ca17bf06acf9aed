"""One blank of an answer: a number, an expression, a relation or words, with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rewards.amounts import take_unit, without_inner_units
from rewards.bounds import Refused, Unreadable
from rewards.clean import plain_text
from rewards.clock import read_clock
from rewards.number_words import in_words
from rewards.parser import parse
from rewards.tree import Node, number, symbols
from rewards.units import DEGREES, PERCENT, Unit, find_unit

_MIXED = re.compile(r"^(-?\d+)\s+(\d+)/(\d+)(?=\D|$)")


@dataclass(frozen=True)
class Part:
    """One blank: ``tree`` is None for words; ``text`` is its normalised spelling."""

    text: str
    tree: Node | None = None
    unit: Unit | None = None


def _trimmed(text: str) -> str:
    return re.sub(r"(?<!\d)\.$|(?<=\d)\.$", "", text.strip(" \n,;")).strip()


def _peel(part: Part) -> Part:
    """Take degrees and percent, which the grammar knows as operators, off the top of a tree."""
    tree = part.tree
    if tree is None or part.unit:
        return part
    if tree.op in ("deg", "%"):
        return replace(part, tree=tree.args[0], unit=DEGREES if tree.op == "deg" else PERCENT)
    if tree.op == "neg" and tree.args[0].op == "deg":
        return replace(part, tree=Node("neg", tree.args[0].args), unit=DEGREES)
    return part


def _named_point(text: str) -> str:
    """``A(1, 2)`` is the point (1, 2)."""
    match = re.fullmatch(r"[A-Z]'?\s*(\([^()]*,[^()]*\))", text)
    return match.group(1) if match else text


def read_part(text: str) -> Part:
    """Read one blank. Raises ``Refused``; what is not mathematics becomes words."""
    text = _trimmed(text)
    spelled = plain_text(text)
    words = in_words(spelled) if spelled[:1].isalpha() else None
    if words:
        unit = (find_unit(words[1]) or Unit(words[1])) if words[1] else None
        return Part(spelled, number(words[0]), unit)
    clock = read_clock(text)
    if clock:
        return Part(spelled, clock)
    amount = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    amount, unit = take_unit(_named_point(amount))
    try:
        return _peel(Part(spelled, parse(without_inner_units(amount)), unit))
    except Refused:
        raise
    except Unreadable:
        return _last_member(amount, spelled, unit)


def _last_member(text: str, spelled: str, unit: Unit | None) -> Part:
    """The value at the end of an equation whose name cannot be read: "Area of the square = 12"."""
    name, equals, value = text.rpartition("=")
    if not (equals and name.strip()) or name.rstrip()[-1:] in "<>!":
        return Part(spelled)
    try:
        tree = parse(without_inner_units(value))
    except Unreadable:
        return Part(spelled)
    return _peel(Part(spelled, tree, unit)) if not symbols(tree) and tree.op != "rel" else Part(spelled)
