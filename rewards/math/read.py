"""Parsed answers: items, each a number, an expression, a relation or words, with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from rewards.math.amounts.clock import read_clock
from rewards.math.amounts.dates import read_date, read_range
from rewards.math.amounts.quantities import split_unit
from rewards.math.amounts.sums import drop_inner_units
from rewards.math.amounts.units import DEGREES, PERCENT, Unit
from rewards.math.bounds import Refused, Unreadable, check_length
from rewards.math.clean import clean, plain_text
from rewards.math.comparison.chains import definition, is_name
from rewards.math.notations import special
from rewards.math.parser import parse
from rewards.math.phrases import (
    is_name_in_words,
    unread_mathematics,
    without_description,
    without_quantifier,
)
from rewards.math.split import ItemTexts, joined_by_and, split_items
from rewards.math.tree import Node, symbol, symbols, walk

_MIXED = re.compile(r"^(-?\d+)\s+(\d+)/(\d+)(?=\D|$)")


@dataclass(frozen=True)
class AnswerItem:
    """One item of an answer: ``tree`` is None for words; ``text`` is the normalised spelling.

    ``letters`` is the whole item where its unit may also be letters of algebra ("5 m"), else empty.
    """

    text: str
    tree: Node | None = None
    unit: Unit | None = None
    letters: str = ""


def _trimmed(text: str) -> str:
    return re.sub(r"(?<!\d)\.$|(?<=\d)\.$", "", text.strip(" \n,;")).strip()


def _operator_as_unit(item: AnswerItem) -> AnswerItem:
    """Convert a topmost degree or percent operator of the tree to a unit."""
    tree = item.tree
    if tree is None or item.unit:
        return item
    if tree.op in ("deg", "%"):
        return replace(item, tree=tree.args[0], unit=DEGREES if tree.op == "deg" else PERCENT)
    if tree.op == "neg" and tree.args[0].op == "deg":
        return replace(item, tree=Node("neg", tree.args[0].args), unit=DEGREES)
    return item


def _drop_point_name(text: str) -> str:
    """Return the point (1, 2) of ``A(1, 2)``; other texts unchanged."""
    match = re.fullmatch(r"[A-Z]'?\s*(\([^()]*,[^()]*\))", text)
    return match.group(1) if match else text


def read_item(text: str) -> AnswerItem:
    """Parse one item; text that is not mathematics becomes words. Raises ``Refused``."""
    dots = special(text, "") if text.strip() in ("...", "\\ldots") else None
    text = _trimmed(text)
    plain = plain_text(text)
    notation = dots or special(text, plain)
    if notation:
        return AnswerItem(plain, notation)
    clock = read_clock(text)
    if clock:
        return AnswerItem(plain, clock)
    spanned = read_range(text.replace("$", " ").strip()) if text[:1].isdigit() or text[:4] == "from" else None
    if spanned:
        return AnswerItem(plain, spanned)
    quantity = split_unit(_drop_point_name(_MIXED.sub(r"\1\\frac{\2}{\3}", text)))
    if quantity is None:
        return AnswerItem(plain)
    amount, unit = quantity.text, quantity.unit
    if quantity.tree is not None:
        return AnswerItem(plain, quantity.tree, unit)
    try:
        tree = parse(drop_inner_units(amount, unit))
    except Refused:
        raise
    except Unreadable:
        return _last_member(amount, plain, unit)
    return _operator_as_unit(AnswerItem(plain, tree, unit, text if quantity.letters else ""))


def _last_member(text: str, plain: str, unit: Unit | None) -> AnswerItem:
    """Return the value of an equation whose left side is a name in words: "Area of the square = 12"."""
    name, equals, value = text.partition("=")
    if not equals or not is_name_in_words(name):
        return AnswerItem(plain)
    try:
        tree = parse(drop_inner_units(value, unit))
    except Unreadable:
        return AnswerItem(plain)
    if symbols(tree) or (tree.op == "rel" and not definition(tree)):
        return AnswerItem(plain)
    return _operator_as_unit(AnswerItem(plain, tree, unit))


def unread_part(gold: ParsedAnswer, text: str) -> str | None:
    """Return the part of a gold answer that is mathematics but was read as words, or None."""
    if all(item.tree is not None for item in gold.items):
        return None
    return unread_mathematics(clean(text))


_FLIPPED = {">": "<", ">=": "<="}


def _with_sign(tree: Node, plus: bool) -> Node:
    """Return the tree with every ± as plus and every ∓ as minus, or vice versa."""
    args = tuple(_with_sign(arg, plus) for arg in tree.args)
    if tree.op != "pm":
        return replace(tree, args=args)
    added = args[1] if plus == (tree.name == "p") else Node("neg", (args[1],))
    return Node("+", (args[0], added))


def expand_plus_minus(items: tuple[AnswerItem, ...]) -> tuple[AnswerItem, ...] | None:
    """Return the two values of an answer with one ± (or one ± and one ∓, which are linked), else None."""
    tree = items[0].tree if len(items) == 1 else None
    signs = sorted(node.name for node in walk(tree) if node.op == "pm") if tree is not None else []
    if tree is None or not 1 <= len(signs) <= len(set(signs)):
        return None
    return tuple(replace(items[0], tree=_with_sign(tree, plus), text="") for plus in (True, False))


def _bound(item: AnswerItem) -> tuple[str, str, Node] | None:
    """Return (name, "<" or "<=" with a side, bound) of an inequality such as ``x > 1``, else None."""
    tree = item.tree
    if tree is None or tree.op != "rel" or tree.name not in ("<", "<=", ">", ">="):
        return None
    left, right = tree.args
    if tree.name in _FLIPPED:
        left, right = right, left
    sign = _FLIPPED.get(tree.name, tree.name)
    if left.op == "sym" and not symbols(right):
        return left.name, f"{sign} above", right
    return (right.name, f"{sign} below", left) if right.op == "sym" and not symbols(left) else None


def merge_bounds(items: tuple[AnswerItem, ...]) -> tuple[AnswerItem, ...]:
    """Merge ``x > 1 and x < 3`` into ``1 < x < 3``; other items are returned unchanged."""
    bounds = sorted((bound for item in items if (bound := _bound(item))), key=lambda b: b[1].split()[1])
    if len(items) != 2 or len(bounds) != 2 or bounds[0][0] != bounds[1][0]:
        return items
    (upper, lower), name = bounds, symbol(bounds[0][0])
    if (upper[1].split()[1], lower[1].split()[1]) != ("above", "below"):
        return items
    signs = f"{lower[1].split()[0]} {upper[1].split()[0]}"
    return (AnswerItem("", Node("rel", (lower[2], name, upper[2]), name=signs)),)


def drop_subscript(item: AnswerItem) -> AnswerItem:
    """Return ``x_2 = 3`` as ``x = 3``: the numbering of solutions is arbitrary."""
    tree = item.tree
    if tree is None or tree.op != "rel":
        return item
    letter = symbol(tree.args[0].name.partition("_")[0])
    return replace(item, tree=Node("rel", (letter, *tree.args[1:]), name=tree.name))


def is_solution_set(items: tuple[AnswerItem, ...]) -> bool:
    """Return whether a list has the form of a solution set: ``x_1 = 2, x_2 = 3``, ``x = 2, 3``."""
    trees = [item.tree for item in items if item.tree is not None]
    defined = [t.args[0].name for t in trees if t.op == "rel" and t.name == "=" and t.args[0].op == "sym"]
    letters = {name.partition("_")[0] for name in defined}
    if len(items) < 2 or len(trees) < len(items) or len(letters) != 1:
        return False
    bare = [tree for tree in trees[1:] if tree.op != "rel"]
    same_name = len(set(defined)) == 1 or all(n[-2:] in ("_1", "_2", "_3", "_4") for n in defined)
    return same_name and (len(defined) == len(items) or (len(defined) == 1 and len(bare) == len(items) - 1))


_MAX_WORDS = 5
_OPEN = re.compile(
    r"not\s+(?:be\s+)?unique|answers?\s+(?:may|can|could)?\s*var|any\s+(?:value|reasonable|one)|acceptable|"
    r"open[- ]ended|reasonable answer|答案不唯一|不唯一|言之有理|略",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(
    r"\(\s*or(?:\s+fill\s+in)?[\s:]+((?:[^()]|\([^()]*\))*)\)|[((]\s*或填?((?:[^()]|\([^()]*\))*)\)"
)
# The end of a worked solution that states the final answer.
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
class ParsedAnswer:
    """A parsed answer.

    Attributes:
        items: its items.
        ordered: False if they are a set, such as solutions.
        joined: "or", "and" or "pm" (the two values of a ±) if one of these joins them, else "".
        alternatives: other interpretations, each equally right.
    """

    items: tuple[AnswerItem, ...]
    ordered: bool = True
    joined: str = ""
    alternatives: tuple[ParsedAnswer, ...] = ()


def _split_spaced_formulas(split: ItemTexts) -> ItemTexts:
    """Split an item such as "y=x+1 2" into formulas that only space separates."""
    texts: list[str] = []
    for text in split.texts:
        words = text.split()
        separable = 1 < len(words) <= 4 and read_item(text).tree is None
        fits = separable and all(read_item(word).tree is not None for word in words)
        texts += words if fits else [text]
    return ItemTexts(tuple(texts), split.ordered)


def _parse_answer(text: str) -> ParsedAnswer:
    date = read_date(text)
    if date:
        return ParsedAnswer((AnswerItem(plain_text(text), date),))
    builder = _SET_BUILDER.fullmatch(text)
    text = builder.group(2) if builder else without_quantifier(without_description(text))
    split = _split_spaced_formulas(split_items(text))
    items = tuple(one for piece in split.texts for one in _components(read_item(piece)))
    if not items:
        raise Unreadable("nothing in it")
    both = expand_plus_minus(items)
    if both:
        return ParsedAnswer(both, ordered=False, joined="pm")
    conjoined = joined_by_and(text)
    if conjoined:
        items = merge_bounds(items)
    joined = "and" if conjoined else "" if split.ordered else "or"
    if is_solution_set(items):
        return ParsedAnswer(tuple(drop_subscript(item) for item in items), ordered=False, joined=joined)
    if _are_solutions(items):
        return ParsedAnswer(items, ordered=False, joined=joined)
    return ParsedAnswer(items, split.ordered, joined)


def _are_solutions(items: tuple[AnswerItem, ...]) -> bool:
    """Return whether a list holds three or more points, or points of three or more numbers, without names.

    Such lists are the solutions of a system, in any order; two points of the plane may be those of A and B.
    """
    sizes = {
        len(item.tree.args) if item.tree is not None and item.tree.op == "bracket" else 0 for item in items
    }
    named = any(re.match(r"[a-z]'?\s*\(", item.text) for item in items)
    return (
        len(items) > 1
        and len(sizes) == 1
        and 0 not in sizes
        and not named
        and (len(items) > 2 or max(sizes) > 2)
    )


def _components(item: AnswerItem) -> tuple[AnswerItem, ...]:
    """Return ``(p, q) = (2, 3)`` as ``p = 2`` and ``q = 3``; other items unchanged."""
    tree = item.tree
    if (
        tree is None
        or tree.op != "rel"
        or tree.name != "="
        or any(side.op != "bracket" for side in tree.args)
    ):
        return (item,)
    names, values = tree.args[0].args, tree.args[1].args
    if len(names) != len(values) or any(name.op != "sym" for name in names):
        return (item,)
    return tuple(
        AnswerItem("", Node("rel", (name, value), name="="))
        for name, value in zip(names, values, strict=True)
    )


# "2,74" and "1 000" may be one number or two.
_COMMA_DECIMAL = re.compile(r"([-+]?\d+),(\d+)(?![\d,])")
_SPACED = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
# 2.5·10³ as programs write it; otherwise "2.5e3" would be a product with e.
_PROGRAM = re.compile(r"([-+]?\d{1,20}(?:\.\d{0,20})?)[eE]([-+]?\d{1,3})")
_SPOKEN_RATIO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s+to\s+(\d{1,9}(?:\.\d{1,9})?)")


def _other_notations(text: str, places: int = 1) -> tuple[ParsedAnswer, ...]:
    """Return other readings of a text; a decimal comma needs ``places`` digits, as "2,5" is a list."""
    text = text.replace("$", " ").strip()
    program = _PROGRAM.fullmatch(text)
    if program:
        value = read_item(rf"{program.group(1)}\times 10^{{{program.group(2)}}}")
        return (ParsedAnswer((value,)),)
    ratio = _SPOKEN_RATIO.fullmatch(text)
    if ratio:
        return (ParsedAnswer((read_item(":".join(ratio.groups())),)),)
    comma = _COMMA_DECIMAL.fullmatch(text)
    decimals = len(comma.group(2)) if comma else 0
    if comma and decimals >= places and (decimals != 3 or comma.group(1).lstrip("+-") == "0"):
        return (ParsedAnswer((read_item(f"{comma.group(1)}.{comma.group(2)}"),)),)
    if " and " in text and (whole := split_unit(text)) and whole.tree is not None:
        return (ParsedAnswer((AnswerItem(plain_text(text), whole.tree, whole.unit),)),)
    if _SPACED.fullmatch(text):
        return (ParsedAnswer((read_item(text.replace(" ", "")),)),)
    return ()


@lru_cache(maxsize=4096)
def read_answer(text: str) -> ParsedAnswer:
    """Parse a bare answer. Raises ``Unreadable`` if it is empty, ``Refused`` if it exceeds the bounds."""
    check_length(text)
    cleaned = clean(text)
    return replace(_parse_answer(cleaned), alternatives=_other_notations(cleaned))


def _is_geometric(item: AnswerItem) -> bool:
    """Return whether an item relates figures ("∠B = ∠AED"); of such, joined by "or", any will do."""
    tree = item.tree
    if tree is None or tree.op != "rel":
        return False
    names = [node.name for node in walk(tree) if node.op == "sym"]
    return all(is_name(side) for side in tree.args) and any(
        name[:1].isupper() or " " in name for name in names
    )


def _check_short(parsed: ParsedAnswer) -> ParsedAnswer:
    for item in parsed.items:
        if item.tree is None and len(item.text.split()) > _MAX_WORDS:
            raise Unreadable("prose: nothing short enough to compare")
    return parsed


def _parse_gold(text: str) -> ParsedAnswer:
    others = [
        found for match in _ALTERNATIVE.finditer(text) for found in match.groups() if found and found.strip()
    ]
    any_one = bool(_CHOOSE.search(text))
    main = _check_short(_parse_answer(_CHOOSE.sub("", _ALTERNATIVE.sub("", text))))
    if _LABELS_OR_DECIMAL.fullmatch(text):
        others.append(text[:-1])
    alternatives = tuple(_check_short(_parse_answer(other)) for other in others)
    any_one = any_one or (main.joined == "or" and all(_is_geometric(item) for item in main.items))
    if not main.ordered and any_one:
        alternatives += tuple(ParsedAnswer((item,)) for item in main.items)
    return replace(main, alternatives=alternatives + _other_notations(text, places=2))


@lru_cache(maxsize=4096)
def read_gold(text: str, ordered: bool = True) -> ParsedAnswer:
    """Parse a gold answer with its alternatives; ``ordered=False`` makes lists sets.

    Raises ``Unreadable`` with the reason if no answer can be compared with it: an open answer, prose, empty.
    """
    check_length(text)
    cleaned = clean(text)
    if _OPEN.search(cleaned):
        raise Unreadable("an open answer: others are equally right")
    worked = _WORKED.search(cleaned) if len(cleaned) > 60 else None
    parsed = _parse_gold(worked.group(1) if worked else cleaned)
    return parsed if ordered else replace(parsed, ordered=False)
