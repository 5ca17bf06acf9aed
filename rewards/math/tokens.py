"""Tokens of cleaned LaTeX or plain mathematics."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from typing import NamedTuple

from rewards.math.bounds import MAX_DIGITS, Refused, Unreadable

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln lg log exp max min sqrt abs gcd lcm"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_WORDS = FUNCTIONS | {"pi", "infty", "theta", "alpha", "beta", "gamma", "omega", "phi", "lambda", "mu"}
_SHORT_WORD_LIST = "no up on in at of to by is it or if so we he an as be go do"
_SHORT_WORDS = frozenset(_SHORT_WORD_LIST.split())
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<num>\d+(?:\.\d*)?|\.\d+)
    | (?P<cmd>\\[a-zA-Z]+|\\[{}\\|])
    | (?P<rel><=|>=|==|!=|/=|<|>|=)
    | (?P<word>[A-Za-z]+)
    | (?P<op>\*\*|[-+*/^_!%:|,;&'()\[\]{}])
    )""",
    re.VERBOSE,
)
_REPEATING = re.compile(
    r"\\overline\s*\{\s*(\d+)\s*\}|((?:\\dot\s*\{?\s*\d\s*\}?\s*\d*\s*)+)|\((\d+)\)(?![\d(])"
)


class Token(NamedTuple):
    """A token; ``kind`` is num, cmd, rel, sym, op or func; ``value`` and ``decimals`` are of numbers."""

    kind: str
    text: str
    value: Fraction | None = None
    decimals: int = -1


def _number(text: str) -> Token:
    if len(text) > MAX_DIGITS:
        raise Refused(f"a number of {len(text):,} digits, at most {MAX_DIGITS:,} are read")
    decimals = len(text.partition(".")[2]) if "." in text else -1
    value = Fraction(text.rstrip(".") if text.endswith(".") else text)
    return Token("num", text, value, decimals)


def _repeating(text: str, end: int, start: Token) -> tuple[Token, int]:
    r"""Extend a decimal by its repeating digits: ``0.\overline{3}``, ``0.\dot{3}``, ``0.1(6)``."""
    match = _REPEATING.match(text, end)
    if start.decimals < 0 or start.value is None or not match:
        return start, end
    digits = "".join(re.findall(r"\d", match.group()))
    scale = 10**start.decimals
    value = start.value + Fraction(int(digits), scale * (10 ** len(digits) - 1))
    return Token("num", start.text + match.group(), value), match.end()


def _consecutive(word: str) -> bool:
    return all(ord(b) - ord(a) == 1 for a, b in itertools.pairwise(word))


# Of the short words, those that are hardly ever factors; a product spells them only in a group or exponent.
_MOSTLY_WORDS = frozenset(
    ["no", "up", "on", "in", "of", "to", "is", "if", "or", "so", "we", "he", "go", "do"]
)
_BEFORE_FACTOR = frozenset("+-*/^=(<>{[|,_&")
_AFTER_FACTOR = frozenset("+-*/^=)<>}]|,_!&")


def _in_formula(text: str, start: int, end: int, word: str) -> bool:
    """Return whether a run of letters stands among operators, as ``at`` in ``v_0+at`` and ``as`` in ``2as``.

    A run that a space separates from a number or another run is a word: "5 is", "2 at x".
    """
    before, after = text[:start], text[end:]
    left, right = before.rstrip()[-1:], after.lstrip()[:1]
    if not (left or right):
        return False
    if word in _MOSTLY_WORDS and left not in ("{", "(", "^"):
        return False
    command = re.search(r"\\[a-zA-Z]+\s*$", before[-16:]) is not None
    close = (left.isdigit() or left in (")", "}", "]")) and not before[-1:].isspace()
    return (not left or left in _BEFORE_FACTOR or command or close) and (
        not right or right in _AFTER_FACTOR or right == "\\"
    )


def _letters(word: str, in_formula: bool) -> list[Token]:
    """Return a run of letters as a function, a Greek name or a product. Raises ``Unreadable`` for a word."""
    if word in _WORDS:
        kind = "func" if word in FUNCTIONS else "cmd"
        return [Token(kind, word if kind == "func" else f"\\{word}")]
    product = (
        word.isupper()
        or _consecutive(word)
        or (len(word) <= 4 and in_formula and not set(word.lower()) & set("aeiou"))
    )
    short = word.lower() in _SHORT_WORDS
    if (len(word) > 2 and not product) or (short and not in_formula) or len(word) > 6:
        raise Unreadable(f"the word {word[:30]!r}")
    return [Token("sym", letter) for letter in word]


def _command(text: str) -> Token:
    name = text[1:]
    return Token("func", name) if name in FUNCTIONS - {"sqrt"} else Token("cmd", text)


def tokenize(text: str) -> list[Token]:
    """Return the tokens of ``text``. Raises ``Unreadable`` at words and unknown characters."""
    tokens: list[Token] = []
    position, length = 0, len(text.rstrip())
    while position < length:
        match = _TOKEN.match(text, position)
        if not match:
            raise Unreadable(f"the character {text[position : position + 8].strip()[:1]!r}")
        position = match.end()
        kind, found = match.lastgroup or "", match.group().strip()
        if kind == "num":
            token, position = _repeating(text, position, _number(found))
            tokens.append(token)
        elif kind == "word":
            start = position - len(found)
            tokens.extend(_letters(found, _in_formula(text, start, position, found)))
        else:
            tokens.append(_command(found) if kind == "cmd" else Token(kind, found))
    return tokens
