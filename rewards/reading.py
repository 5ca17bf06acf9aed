"""What an answer says: its blanks, each a number, an expression, a relation or words, with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from rewards.bounds import Refused, Unreadable, check_length
from rewards.clean import clean, plain_text
from rewards.clock import read_clock
from rewards.parser import parse
from rewards.parts import Pieces, split_parts
from rewards.tokens import FUNCTIONS
from rewards.tree import Node, symbol, symbols, walk
from rewards.units import DEGREES, PERCENT, Unit, find_unit

_MAX_WORDS = 5
_COUNT_WORDS = "zero one two three four five six seven eight nine ten eleven twelve"
_COUNTS = _COUNT_WORDS.split()
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
_UNIT_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*(\^?\s*\{?[23]\}?)?[\s.]*$")
_UNIT_WORD = re.compile(
    r"(?<=[\d)}\]\sπ])((?:square|cubic|sq\.?)\s+)?([A-Za-z°%€£¥]+(?:/[a-z]+)?|[\u4e00-\u9fff]+)(\^?\s*\{?[23]\}?)?[\s.]*$"
)
_CURRENCY = re.compile(r"^\s*(?:\\\$|[¥€£])\s*(?=\d)")
# "2.4." is statements 2 and 4 in some sources and the number 2.4 in others.
_LABELS_OR_DECIMAL = re.compile(r"\d\.\d\.")
_WORD = r"(?:of|per|a|in|[A-Za-z][A-Za-z'-]{2,})"
_COUNTED = re.compile(
    rf"([-+]?[\d,]+(?:\.\d+)?(?:/\d+)?)\s+([A-Za-z][A-Za-z'-]{{2,}}(?:\s+{_WORD}){{1,5}}|[A-Za-z]+-[a-z]{{3,}})"
)
_MIXED = re.compile(r"^(-?\d+)\s+(\d+)/(\d+)(?=\D|$)")
_SINGLE = re.compile(r"[-+]?[\d,]+(?:\.\d+)?")


@dataclass(frozen=True)
class Part:
    """One blank: ``tree`` is None for words; ``text`` is its normalised spelling."""

    text: str
    tree: Node | None = None
    unit: Unit | None = None


@dataclass(frozen=True)
class Reading:
    """An answer. ``alternatives`` are other readings that are as right (gold answers only)."""

    parts: tuple[Part, ...]
    ordered: bool = True
    alternatives: tuple[Reading, ...] = ()


def _trimmed(text: str) -> str:
    return re.sub(r"(?<!\d)\.$|(?<=\d)\.$", "", text.strip(" \n,;")).strip()


def _counted(text: str) -> tuple[str, Unit] | None:
    """Separate what several plain words count: "19 peppermint candies", "-4 rounds per year"."""
    match = _COUNTED.fullmatch(text)
    if not match or any(word in FUNCTIONS for word in match.group(2).split()):
        return None
    return match.group(1), find_unit(match.group(2)) or Unit(match.group(2))


def _take_unit(text: str) -> tuple[str, Unit | None]:
    """Separate the unit at the text's end, if there is one and something before it."""
    counted = _counted(text)
    if counted:
        return counted
    match = _UNIT_TEXT.search(text)
    if match and text[: match.start()].strip():
        name = match.group(1) + (match.group(2) or "")
        return text[: match.start()], find_unit(name) or Unit(name.strip())
    match = _UNIT_WORD.search(text)
    before = text[: match.start()].strip() if match else ""
    if not match or not before:
        return text, None
    return _take_word(text, before, "".join(group or "" for group in match.groups()))


def _take_word(text: str, before: str, name: str) -> tuple[str, Unit | None]:
    """A bare word is a unit if it is known, or if it follows a plain number and is no letter of algebra."""
    plain = _SINGLE.fullmatch(before)
    unit = find_unit(name)
    letters = re.sub(r"[^A-Za-z]", "", name)
    if len(letters) == 1 and not (plain and len(before) > 1 and unit):
        return text, None
    if unit and not re.search(r"\\[A-Za-z]*\s*$", text[: len(before)]):
        return before, unit
    if plain and len(letters) > 2 and letters not in ("sqrt", "sin", "cos", "tan", "log"):
        return before, Unit(name)
    return text, None


def _without_inner_units(text: str) -> str:
    return re.sub(r"(?<=\d)\s*(?:\\text\s*\{\s*)?(?:cm|mm|dm|km|kg)(?:\s*\})?(?![A-Za-z^])", "", text)


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
    if spelled in _COUNTS:
        return Part(spelled, parse(str(_COUNTS.index(spelled))))
    clock = read_clock(text)
    if clock:
        return Part(spelled, clock)
    amount = _MIXED.sub(r"\1\\frac{\2}{\3}", _CURRENCY.sub("", text))
    amount, unit = _take_unit(_named_point(amount))
    try:
        return _peel(Part(spelled, parse(_without_inner_units(amount)), unit))
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
        tree = parse(_without_inner_units(value))
    except Unreadable:
        return Part(spelled)
    return _peel(Part(spelled, tree, unit)) if not symbols(tree) and tree.op != "rel" else Part(spelled)


def _respaced(pieces: Pieces) -> Pieces:
    """Where a blank holds "y=x+1 2", two formulas that only space separates, cut there."""
    texts: list[str] = []
    for text in pieces.texts:
        words = text.split()
        separable = 1 < len(words) <= 4 and read_part(text).tree is None
        fits = separable and all(read_part(word).tree is not None for word in words)
        texts += words if fits else [text]
    return Pieces(tuple(texts), pieces.ordered)


def _expanded(parts: tuple[Part, ...]) -> tuple[Part, ...] | None:
    """±a, or x = ±a, as its two values, if that is all the answer is."""
    tree = parts[0].tree if len(parts) == 1 else None
    named = tree is not None and tree.op == "rel" and tree.name == "=" and tree.args[0].op == "sym"
    value = tree.args[1] if tree is not None and named else tree
    if tree is None or value is None or value.op != "pm":
        return None
    centre, offset = value.args
    signs = (Node("+", (centre, offset)), Node("+", (centre, Node("neg", (offset,)))))
    trees = [Node("rel", (tree.args[0], sign), name="=") if named else sign for sign in signs]
    return tuple(replace(parts[0], tree=both, text="") for both in trees)


def _read_one(text: str) -> Reading:
    pieces = _respaced(split_parts(text))
    parts = tuple(read_part(piece) for piece in pieces.texts)
    if not parts:
        raise Unreadable("nothing in it")
    both = _expanded(parts)
    if both:
        return Reading(both, ordered=False)
    if _solutions(parts):
        return Reading(tuple(_unnumbered(part) for part in parts), ordered=False)
    return Reading(parts, pieces.ordered)


def _unnumbered(part: Part) -> Part:
    """``x_2 = 3`` as ``x = 3``: which of its solutions an equation calls the second says nothing."""
    tree = part.tree
    if tree is None or tree.op != "rel":
        return part
    letter = symbol(tree.args[0].name.partition("_")[0])
    return replace(part, tree=Node("rel", (letter, *tree.args[1:]), name=tree.name))


def _solutions(parts: tuple[Part, ...]) -> bool:
    """Whether a list is a solution set by its form: ``x_1 = 2, x_2 = 3``, ``x = 2, x = 3``, ``x = 2, 3``."""
    trees = [part.tree for part in parts if part.tree is not None]
    defined = [t.args[0].name for t in trees if t.op == "rel" and t.name == "=" and t.args[0].op == "sym"]
    letters = {name.partition("_")[0] for name in defined}
    if len(parts) < 2 or len(trees) < len(parts) or len(letters) != 1:
        return False
    bare = [tree for tree in trees[1:] if tree.op != "rel"]
    same_name = len(set(defined)) == 1 or all(n[-2:] in ("_1", "_2", "_3", "_4") for n in defined)
    return same_name and (len(defined) == len(parts) or (len(defined) == 1 and len(bare) == len(parts) - 1))


# "2,74" and "1 000" are one number to some who write them and two to others.
_COMMA_DECIMAL = re.compile(r"([-+]?\d+),(\d+)(?![\d,])")
_SPACED = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")


def _as_one_number(text: str) -> tuple[Reading, ...]:
    text = text.replace("$", " ").strip()
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
    return replace(_read_one(cleaned), alternatives=_as_one_number(cleaned))


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
    return replace(main, alternatives=alternatives + _as_one_number(text))


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
