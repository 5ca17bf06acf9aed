"""Words around formulas: those that describe ("the circle x² + y² = 4"), and those that carry meaning."""

from __future__ import annotations

import re

from rewards.extract.stance import denies
from rewards.math.bounds import Unreadable
from rewards.math.parser import parse

_DESCRIBING_LIST = (
    "it is are was be the this that these those an of with equation equations plane planes circle circles "
    "line lines sphere function functions graph curve parabola hyperbola ellipse point points value "
    "values answer answers solution solutions set interval expression formula number result matrix vector "
    "sequence probability area volume length perimeter circumference radius diameter distance angle "
    "measure slope ratio polynomial inverse derivative limit total we get have obtain has given by "
    "approximately about exactly so then therefore hence thus equals equal must will its coordinates "
    "coordinate center centre vertex intersection general particular approx roughly around only just "
    "simply altogether"
)
_DESCRIBING = frozenset(_DESCRIBING_LIST.split())
_WORD = re.compile(r"[A-Za-z]+")
_FORMULA = re.compile(r"\$\$?[^$]*\$\$?")
_LEADING = re.compile(r"(?:[A-Za-z]+\s+|[A-Za-z]+:\s*)+")
# Words that make an equation a condition instead of a value: "converges when x", "max at x".
_CONDITION = re.compile(
    r"\b(?:when|if|for|at|where|while|iff|unless|because|since|with|on|not|no|isn't|aren't|never|than|or|and)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z][A-Za-z\s'()-]*")
_FORMULA_NAME = re.compile(r"[A-Za-z\\{}_/' ]+")
_QUANTIFIED = re.compile(
    r"[,;\s]*(?:\\text\s*\{\s*)?,?\s*\b(?:for\s+(?:all|every|any|each)|where\s+[a-zA-Z]\s+is\s+an?y?\b)[^=<>]*$"
)
_LATEX = re.compile(r"\\(?!text\b)[A-Za-z]+|[=<>^_{}]")


def without_description(text: str) -> str:
    """Return the formula of a cleaned text whose words only describe it; other texts unchanged.

    "It is the plane $2x+3y-z=0$." is ``2x+3y-z=0``; "max at $x=0$" stays, as its words carry meaning.
    """
    if not _WORD.search(text) or "?" in text or denies(text):
        return text
    if "$" in text:
        words = _WORD.findall(_FORMULA.sub(" ", re.sub(r"\\text\s*\{|\\[A-Za-z]+", " ", text)))
        if not words or not all(
            word.lower() in _DESCRIBING or word.lower() in ("and", "or", "a") for word in words
        ):
            return text
        if all(word.lower() in ("and", "or") for word in words):
            return text
        return _FORMULA_OR_WORDS.sub(lambda match: match.group(1) or _joining(match.group(2)), text).strip(
            " ."
        )
    match = _LEADING.match(text)
    if match and match.end() < len(text):
        words = _WORD.findall(match.group())
        if all(word.lower() in _DESCRIBING or (word in ("a", "A") and len(words) > 1) for word in words):
            rest = text[match.end() :]
            return rest if re.search(r"[\d=\\]", rest) else text
    return text


_FORMULA_OR_WORDS = re.compile(r"(\$\$?[^$]*\$\$?)|([^$]+)")


def _joining(words: str) -> str:
    """Return the words between formulas without those that describe: "and", "or" and punctuation stay."""
    return _WORD.sub(lambda match: match.group() if match.group().lower() in ("and", "or") else "", words)


def without_quantifier(text: str) -> str:
    """Return ``f(n)=n`` of "f(n)=n for all n"; a condition such as "for all x>0" stays."""
    match = _QUANTIFIED.search(text) if "for" in text or "where" in text else None
    return text[: match.start()] if match and "=" in text[: match.start()] else text


def is_name_in_words(name: str) -> bool:
    """Return whether the left side of an equation is a name in words, as is "Area", not "max at x"."""
    name = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", name).replace("$", " ").strip()
    if _CONDITION.search(name) or denies(name) or re.search(r"\s[a-z]$", name):
        return False
    if _FORMULA_NAME.fullmatch(name) and not re.search(
        r"[a-z]{2,}", re.sub(r"\\[A-Za-z]+|\{[^{}]*\}", "", name)
    ):
        return True
    if not _NAME.fullmatch(name):
        return False
    return not any(len(word) == 1 and word.islower() and word != "a" for word in _WORD.findall(name))


def unread_mathematics(text: str) -> str | None:
    """Return the part of a text of words that is mathematics which cannot be read, or None.

    Its formulas between ``$`` are parsed one by one; what is left may hold no LaTeX and no operators.
    """
    for formula in _FORMULA.findall(text):
        content = str(formula).strip("$ ")
        try:
            if content and not _TEXT_ONLY.fullmatch(content):
                parse(content)
        except Unreadable:
            return content
    rest = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", _FORMULA.sub(" ", text))
    left: str = rest.strip()
    return left if _LATEX.search(left) and not _WORDS_AND_EQUATION.fullmatch(left) else None


_TEXT_ONLY = re.compile(r"(?:\\text\s*\{[^{}]*\}|[\s,.])+")
# "converges when x = 2" without delimiters.
_WORDS_AND_EQUATION = re.compile(r"[A-Za-z ,.]{3,}[A-Za-z] ?[=<>] ?-?[\d.]+[ .]*")
