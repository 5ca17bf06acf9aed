"""Parsed answers: items, each a number, an expression, a relation or words, with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from rewards.math.bounds import Refused, Unreadable, check_length
from rewards.math.clean import clean, plain_text
from rewards.math.number_words import in_words
from rewards.math.parser import parse
from rewards.math.quantities import (
    DEGREES,
    PERCENT,
    Unit,
    find_unit,
    read_clock,
    take_unit,
    without_inner_units,
)
from rewards.math.split import Pieces, joined_by_and, split_parts
from rewards.math.tree import Node, number, symbol, symbols, walk

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


_FLIPPED = {">": "<", ">=": "<="}


def _with_sign(tree: Node, plus: bool) -> Node:
    """The tree with every ± as plus and every ∓ as minus, or the other way round."""
    args = tuple(_with_sign(arg, plus) for arg in tree.args)
    if tree.op != "pm":
        return replace(tree, args=args)
    added = args[1] if plus == (tree.name == "p") else Node("neg", (args[1],))
    return Node("+", (args[0], added))


def both_signs(parts: tuple[Part, ...]) -> tuple[Part, ...] | None:
    """An answer with one ± in it (or one ± and one ∓, which go together) as its two values, else None."""
    tree = parts[0].tree if len(parts) == 1 else None
    signs = sorted(node.name for node in walk(tree) if node.op == "pm") if tree is not None else []
    if tree is None or not 1 <= len(signs) <= len(set(signs)):
        return None
    return tuple(replace(parts[0], tree=_with_sign(tree, plus), text="") for plus in (True, False))


def _bound(part: Part) -> tuple[str, str, Node] | None:
    """(name, "<" or "<=" with a side, bound) of ``x > 1`` and its like."""
    tree = part.tree
    if tree is None or tree.op != "rel" or tree.name not in ("<", "<=", ">", ">="):
        return None
    left, right = tree.args
    if tree.name in _FLIPPED:
        left, right = right, left
    sign = _FLIPPED.get(tree.name, tree.name)
    if left.op == "sym" and not symbols(right):
        return left.name, f"{sign} above", right
    return (right.name, f"{sign} below", left) if right.op == "sym" and not symbols(left) else None


def both_bounds(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """``x > 1 and x < 3`` as ``1 < x < 3``; any other parts as they are."""
    bounds = sorted((bound for part in parts if (bound := _bound(part))), key=lambda b: b[1].split()[1])
    if len(parts) != 2 or len(bounds) != 2 or bounds[0][0] != bounds[1][0]:
        return parts
    (upper, lower), name = bounds, symbol(bounds[0][0])
    if (upper[1].split()[1], lower[1].split()[1]) != ("above", "below"):
        return parts
    signs = f"{lower[1].split()[0]} {upper[1].split()[0]}"
    return (Part("", Node("rel", (lower[2], name, upper[2]), name=signs)),)


def unnumbered(part: Part) -> Part:
    """``x_2 = 3`` as ``x = 3``: which of its solutions an equation calls the second says nothing."""
    tree = part.tree
    if tree is None or tree.op != "rel":
        return part
    letter = symbol(tree.args[0].name.partition("_")[0])
    return replace(part, tree=Node("rel", (letter, *tree.args[1:]), name=tree.name))


def is_solution_set(parts: tuple[Part, ...]) -> bool:
    """Whether a list is a solution set by its form: ``x_1 = 2, x_2 = 3``, ``x = 2, x = 3``, ``x = 2, 3``."""
    trees = [part.tree for part in parts if part.tree is not None]
    defined = [t.args[0].name for t in trees if t.op == "rel" and t.name == "=" and t.args[0].op == "sym"]
    letters = {name.partition("_")[0] for name in defined}
    if len(parts) < 2 or len(trees) < len(parts) or len(letters) != 1:
        return False
    bare = [tree for tree in trees[1:] if tree.op != "rel"]
    same_name = len(set(defined)) == 1 or all(n[-2:] in ("_1", "_2", "_3", "_4") for n in defined)
    return same_name and (len(defined) == len(parts) or (len(defined) == 1 and len(bare) == len(parts) - 1))


_MAX_WORDS = 5
_OPEN = re.compile(
    r"not\s+(?:be\s+)?unique|answers?\s+(?:may|can|could)?\s*var|any\s+(?:value|reasonable|one)|acceptable|"
    r"open[- ]ended|reasonable answer|答案不唯一|不唯一|言之有理|略",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(
    r"\(\s*or(?:\s+fill\s+in)?[\s:]+((?:[^()]|\([^()]*\))*)\)|[((]\s*或填?((?:[^()]|\([^()]*\))*)\)"
)
# The end of a worked solution that says what to write down, and nothing else after it.
_WORKED = re.compile(
    r"\b(?:therefore|thus|hence|so),?\s+(?:fill\s+in|(?:it|the\s+(?:answer|value|result))\s+is)\s*:?\s*"
    r"(\S[^\n.,;]{0,30}(?:\.\d+)?)\.?\s*$",
    re.IGNORECASE,
)
_CHOOSE = re.compile(r"\(\s*(?:choose|any|write|fill in)[^()]*one[^()]*\)", re.IGNORECASE)
# {x | x > 2}
_SET_BUILDER = re.compile(
    r"[$\s]*(?:[A-Z]\s*=\s*)?\\?\{\s*([a-z])\s*(?:\\in\s*\(-\\infty,\\infty\)\s*)?[|:]([^{}|]*(?:\\le|\\ge|\\ne|[<>=])"
    r"(?:[^{}]|\{[^{}]*\})*?)\\?\}[$\s]*"
)
# "2.4." is statements 2 and 4 in some sources and the number 2.4 in others.
_LABELS_OR_DECIMAL = re.compile(r"\d\.\d\.")


@dataclass(frozen=True)
class Reading:
    """An answer. ``alternatives`` are other readings that are as right (gold answers only)."""

    parts: tuple[Part, ...]
    ordered: bool = True
    alternatives: tuple[Reading, ...] = ()


def _respaced(pieces: Pieces) -> Pieces:
    """Where a blank holds "y=x+1 2", two formulas that only space separates, cut there."""
    texts: list[str] = []
    for text in pieces.texts:
        words = text.split()
        separable = 1 < len(words) <= 4 and read_part(text).tree is None
        fits = separable and all(read_part(word).tree is not None for word in words)
        texts += words if fits else [text]
    return Pieces(tuple(texts), pieces.ordered)


def _read_one(text: str) -> Reading:
    builder = _SET_BUILDER.fullmatch(text)
    text = builder.group(2) if builder else text
    pieces = _respaced(split_parts(text))
    parts = tuple(read_part(piece) for piece in pieces.texts)
    if not parts:
        raise Unreadable("nothing in it")
    both = both_signs(parts)
    if both:
        return Reading(both, ordered=False)
    if joined_by_and(text):
        parts = both_bounds(parts)
    if is_solution_set(parts):
        return Reading(tuple(unnumbered(part) for part in parts), ordered=False)
    return Reading(parts, pieces.ordered)


# "2,74" and "1 000" are one number to some who write them and two to others.
_COMMA_DECIMAL = re.compile(r"([-+]?\d+),(\d+)(?![\d,])")
_SPACED = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")


# How programs write 2.5·10³; "2.5e3" could only otherwise be a product with e.
_PROGRAM = re.compile(r"([-+]?\d{1,20}(?:\.\d{0,20})?)[eE]([-+]?\d{1,3})")

_SPOKEN_RATIO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s+to\s+(\d{1,9}(?:\.\d{1,9})?)")


def _other_readings(text: str) -> tuple[Reading, ...]:
    text = text.replace("$", " ").strip()
    program = _PROGRAM.fullmatch(text)
    if program:
        value = read_part(rf"{program.group(1)}\times 10^{{{program.group(2)}}}")
        return (Reading((value,)),)
    ratio = _SPOKEN_RATIO.fullmatch(text)
    if ratio:
        return (Reading((read_part(":".join(ratio.groups())),)),)
    comma = _COMMA_DECIMAL.fullmatch(text)
    if comma and (len(comma.group(2)) != 3 or comma.group(1).lstrip("+-") == "0"):
        return (Reading((read_part(f"{comma.group(1)}.{comma.group(2)}"),)),)
    if _SPACED.fullmatch(text):
        return (Reading((read_part(text.replace(" ", "")),)),)
    return ()


@lru_cache(maxsize=4096)
def read_answer(text: str) -> Reading:
    """Return what a bare answer says. Raises ``Unreadable`` if empty, ``Refused`` if too large."""
    check_length(text)
    cleaned = clean(text)
    return replace(_read_one(cleaned), alternatives=_other_readings(cleaned))


def _relational(part: Part) -> bool:
    """Whether a blank is a relation between things with several names, of which "or" means any one."""
    tree = part.tree
    return tree is not None and tree.op == "rel" and not _is_solution(tree)


def _is_solution(tree: Node) -> bool:
    names = {n.name for n in walk(tree) if n.op == "sym"} - {"e", "i", "pi", "oo"}
    return len(names) <= 1


def _scorable(reading: Reading) -> Reading:
    for part in reading.parts:
        if part.tree is None and len(part.text.split()) > _MAX_WORDS:
            raise Unreadable("prose: nothing short enough to compare")
    return reading


def _gold_alternatives(text: str) -> Reading:
    others = [
        found for match in _ALTERNATIVE.finditer(text) for found in match.groups() if found and found.strip()
    ]
    any_one = bool(_CHOOSE.search(text))
    main = _scorable(_read_one(_CHOOSE.sub("", _ALTERNATIVE.sub("", text))))
    if _LABELS_OR_DECIMAL.fullmatch(text):
        others.append(text[:-1])
    alternatives = tuple(_scorable(_read_one(other)) for other in others)
    if not main.ordered and (any_one or all(_relational(part) for part in main.parts)):
        alternatives += tuple(Reading((part,)) for part in main.parts)
    return replace(main, alternatives=alternatives + _other_readings(text))


@lru_cache(maxsize=4096)
def read_gold(text: str, ordered: bool = True) -> Reading:
    """Return what a gold answer says, its alternatives included; ``ordered=False`` takes lists as sets.

    Raises ``Unreadable`` with the reason if nothing can be compared with it: an open answer, prose, nothing.
    """
    check_length(text)
    cleaned = clean(text)
    if _OPEN.search(cleaned):
        raise Unreadable("an open answer: others are as right")
    worked = _WORKED.search(cleaned) if len(cleaned) > 60 else None
    reading = _gold_alternatives(worked.group(1) if worked else cleaned)
    return reading if ordered else replace(reading, ordered=False)
