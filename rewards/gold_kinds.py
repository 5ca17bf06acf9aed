"""Kinds of gold answers (number, interval, quantity, option letter, …), as the verifier reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.math.amounts.units import Unit, is_percent
from rewards.math.bounds import Unreadable
from rewards.math.choices import find_options, gold_letters
from rewards.math.read import AnswerItem, ParsedAnswer, read_gold
from rewards.math.tree import Node, exact_value, symbols

OPTION = "option"
LETTER = "option letter"
LETTERS = "several option letters"
LETTER_AND_TEXT = "option letter and text"
WORDS = "words"
# A right answer matches such a gold answer only if it is spelled in the same way.
ONLY_AS_WORDS = "digits or LaTeX, read as words"

# "(D) Alina", "B. 12 cm"; not "A = 3" or "a) 3".
LETTERED = re.compile(r"(?:\(([A-J])\)|([A-J])[.):])\s*(\S.{0,200})", re.DOTALL)
_MATHEMATICAL = re.compile(r"[\d\\^_=<>{}]")
_SIGN = re.compile(r"\s*(?:[<>=≤≥≠]|\\(?:lt|gt|leq?|geq?|neq?))\s*")
_KINDS_OF_TREES = {
    "clock": "time",
    ":": "ratio",
    "set": "set",
    "cup": "union of intervals or sets",
    "cap": "union of intervals or sets",
    "matrix": "matrix",
}


def gold_kind(gold: str, choices: Sequence[str] = ()) -> str:
    """Return the kind of a gold answer, in words for a table.

    Args:
        gold: the gold answer.
        choices: the options' texts, empty for a free-form question.
    """
    if choices and find_options(gold, choices):
        return OPTION
    letters = gold_letters(gold)
    if letters:
        return LETTER if len(letters) == 1 else LETTERS
    if LETTERED.fullmatch(gold.strip()):
        return LETTER_AND_TEXT
    try:
        parsed = read_gold(gold)
    except Unreadable as error:
        return f"unreadable: {str(error).partition(':')[0]}"
    return _parsed_kind(parsed)


def _parsed_kind(parsed: ParsedAnswer) -> str:
    kinds = [item_kind(item) for item in parsed.items]
    if ONLY_AS_WORDS in kinds:
        return ONLY_AS_WORDS
    return kinds[0] if len(kinds) == 1 else list_kind(len(kinds), parsed.ordered)


def list_kind(count: int, ordered: bool) -> str:
    """Return the kind of a gold answer of several items."""
    shown = str(count) if count < 4 else "4 or more"
    return f"list of {shown}" if ordered else f"{shown} values in any order"


def item_kind(item: AnswerItem) -> str:
    """Return the kind of one item of a parsed answer."""
    tree = item.tree
    if tree is None:
        if _SIGN.fullmatch(item.text):
            return "comparison sign"
        return ONLY_AS_WORDS if _MATHEMATICAL.search(item.text) else WORDS
    if item.unit is not None:
        return _unit_kind(item.unit)
    if tree.op == "rel":
        return "equation" if set(tree.name.split()) == {"="} else "inequality"
    if tree.op == "bracket":
        return "point or open interval" if tree.name == "()" else "interval or vector"
    return _KINDS_OF_TREES.get(tree.op) or _expression_kind(tree)


def _unit_kind(unit: Unit) -> str:
    if is_percent(unit):
        return "percentage"
    return "number of things" if unit.measure is None else "quantity with unit"


def _expression_kind(tree: Node) -> str:
    sign_removed = tree.args[0] if tree.op == "neg" else tree
    if sign_removed.op == "num" and sign_removed.value is not None:
        return "whole number" if sign_removed.value.denominator == 1 else "decimal"
    if exact_value(tree) is not None:
        return "fraction" if sign_removed.op == "/" else "rational expression"
    return "expression" if symbols(tree) else "number with roots, π or functions"
