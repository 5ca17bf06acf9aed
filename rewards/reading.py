"""What an answer says: its blanks, each a number, an expression, a relation or words, with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from rewards.blank import Part, read_part
from rewards.bounds import Unreadable, check_length
from rewards.clean import clean
from rewards.parts import Pieces, joined_by_and, split_parts
from rewards.solutions import both_bounds, both_signs, is_solution_set, unnumbered
from rewards.tree import Node, walk

__all__ = ["Part", "Reading", "Unreadable", "read_answer", "read_gold", "read_part"]

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
