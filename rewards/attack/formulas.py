"""Attacks on formulas, equations, inequalities, intervals, lists: one thing is changed or missing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.attack.gold import Attack, Gold, fraction
from rewards.attack.value import differ

_FLIPPED = {
    "<": ">", ">": "<", r"\le": r"\ge", r"\leq": r"\geq", r"\ge": r"\le", r"\geq": r"\leq", "≤": "≥",
    "≥": "≤", r"\leqslant": r"\geqslant", r"\geqslant": r"\leqslant", r"\ne": "=", r"\neq": "=", "≠": "=",
}  # fmt: skip
_LOOSENED = {
    "<": r"\le", ">": r"\ge", r"\le": "<", r"\leq": "<", r"\ge": ">", r"\geq": ">", "≤": "<", "≥": ">",
    r"\leqslant": "<", r"\geqslant": ">",
}  # fmt: skip
_SIGN = re.compile(r"<|>|\\(?:leqslant|geqslant|leq|geq|neq|le|ge|ne)(?![a-z])|[≤≥≠]")
_INTEGER = re.compile(r"(?<![\d.\\])\d+(?![\d.])")


def formula_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield the attacks that change a formula's text, each checked by values or by its form."""
    if gold.right is not None:
        return
    made = {
        "formula": _formula, "equation": _equation, "relation": _relation, "list": _list,
        "bracket": _bracket, "parts": _parts,
    }.get(gold.form)  # fmt: skip
    if made:
        yield from made(gold)


def changed_formulas(text: str) -> Iterator[tuple[str, str]]:
    """Yield formulas of another value: a number or a sign changed, a term added, the opposite, a multiple."""
    candidates = [(f"{text}+1", "1 added"), (f"-({text})", "the opposite"), (f"2({text})", "doubled")]
    for match in _INTEGER.finditer(text):
        number = str(int(match.group()) + 1)
        candidates.append((text[: match.start()] + number + text[match.end() :], "a number changed"))
    for at, sign in enumerate(text):
        if sign in "+-" and at:
            swapped = "-" if sign == "+" else "+"
            candidates.append((text[:at] + swapped + text[at + 1 :], "a sign changed"))
    for candidate, why in candidates:
        if differ(candidate, text):
            yield candidate, why


def _formula(gold: Gold) -> Iterator[Attack]:
    for text, why in changed_formulas(gold.bare):
        yield Attack("changed formula", rf"\boxed{{{text}}}", why)
        yield Attack("changed formula", f"The answer is ${text}$.", why)


def _equation(gold: Gold) -> Iterator[Attack]:
    left, _, right = gold.bare.partition("=")
    name = left.strip()
    # Only where one side is a name is another formula of the other side surely another equation.
    if re.fullmatch(r"[a-zA-Z](?:\([a-zA-Z]\))?", name) and name[0] not in re.sub(r"\\[a-z]+", "", right):
        for text, why in changed_formulas(right.strip()):
            yield Attack("changed formula", rf"\boxed{{{name}={text}}}", why)
        yield Attack("changed relation", rf"\boxed{{{name} \neq {right}}}", "unequal instead of equal")
        for sign in ("<", ">", r"\le", r"\ge"):
            yield Attack(
                "changed relation", rf"\boxed{{{name} {sign} {right}}}", "an inequality, not an equation"
            )


def _relation(gold: Gold) -> Iterator[Attack]:
    signs = list(_SIGN.finditer(gold.bare))
    for match in signs:
        for table, why in ((_FLIPPED, "turned round"), (_LOOSENED, "with or without equality")):
            sign = table.get(match.group())
            if sign:
                text = f"{gold.bare[: match.start()]}{sign} {gold.bare[match.end() :]}"
                yield Attack("changed relation", rf"\boxed{{{text}}}", f"{match.group()} is {why}")
    pieces = [piece.strip() for piece in _SIGN.split(gold.bare)]
    if len(signs) == 2 and all(pieces):
        for text in (
            f"{pieces[0]}{signs[0].group()} {pieces[1]}",
            f"{pieces[1]}{signs[1].group()} {pieces[2]}",
        ):
            yield Attack("partial", rf"\boxed{{{text}}}", "one of two bounds is missing")
    if len(signs) == 1 and fraction(pieces[1]) is not None and pieces[0].isalpha():
        yield Attack("changed relation", rf"\boxed{{{gold.bare}+1}}", "another bound")
        yield Attack("changed relation", rf"\boxed{{{pieces[0]}={pieces[1]}}}", "the bound alone")
        yield Attack("partial", rf"\boxed{{{pieces[1]}}}", "the bound alone")


def _list(gold: Gold) -> Iterator[Attack]:
    items = list(gold.items)
    values = [fraction(item) for item in items]
    for at, item in enumerate(items):
        rest = [one for number, one in enumerate(items) if number != at]
        if values.count(values[at]) == 1:
            yield Attack("partial", rf"\boxed{{{', '.join(rest)}}}", f"{item} is missing")
            yield Attack("partial", f"<answer>{item}</answer>", "one item of several")
        changed = [*items[:at], f"{item}7", *items[at + 1 :]]
        if "/" not in item and "frac" not in item and "." not in item:
            yield Attack("partial", rf"\boxed{{{', '.join(changed)}}}", f"{item} is changed")
    if len(items) == 2 and items[1].isdecimal() and items[0].lstrip("-").isdecimal():
        yield Attack("changed number", rf"\boxed{{{items[0]}.{items[1]}}}", "a point for the comma")
        yield Attack("changed number", rf"\boxed{{{items[0]}{items[1]}}}", "the comma dropped")
        yield Attack("changed number", rf"\boxed{{{items[0]}/{items[1]}}}", "a fraction bar for the comma")
    yield Attack("partial", rf"\boxed{{{', '.join([*items, '1729'])}}}", "an item too many")


def _bracket(gold: Gold) -> Iterator[Attack]:
    opening, low, high, closing = gold.items
    other = {"(": "[", "[": "(", ")": "]", "]": ")"}
    kind = "changed interval"
    if low != high:
        yield Attack(kind, rf"\boxed{{{opening}{high},{low}{closing}}}", "the ends swapped")
        for end in (low, high):
            yield Attack("partial", rf"\boxed{{{end}}}", "one end alone")
        if "infty" not in low:
            yield Attack(
                kind, rf"\boxed{{{other[opening]}{low},{high}{closing}}}", "the first bracket changed"
            )
        if "infty" not in high:
            yield Attack(
                kind, rf"\boxed{{{opening}{low},{high}{other[closing]}}}", "the last bracket changed"
            )
    for at, end in enumerate((low, high)):
        for text, why in changed_formulas(end):
            ends = (text, high) if at == 0 else (low, text)
            yield Attack(kind, rf"\boxed{{{opening}{ends[0]},{ends[1]}{closing}}}", f"at an end, {why}")


_LONG = 200  # a worked solution; its last part may be its answer


def _parts(gold: Gold) -> Iterator[Attack]:
    first, last = gold.items[0].strip(), gold.items[-1].strip()
    if first == last or len(gold.bare) > _LONG:
        return
    yield Attack("partial", f"<answer>{gold.items[0]}</answer>", "the first of several parts")
    yield Attack("partial", f"<answer>{gold.items[-1]}</answer>", "the last of several parts")
