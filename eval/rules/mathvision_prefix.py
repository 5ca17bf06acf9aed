r"""The part of a text that MathVision's scorer reads as one number, spelt for this project's parser.

The scorer's grammar is that of latex2sympy2 (1.9). It reads as far as it can and forgets the rest: ``45.``,
``5 triangles`` (``tr`` is a function there) and ``\frac{1}{8}}\mathrm{~m}^{2``, which a greedy search for a
box leaves, have a number. Letters are unknowns, so ``e``, ``5cm`` and ``\ln 2``, whose base is the letter e,
have none. ``1\frac{1}{2}`` is a product, ``1/2\pi`` is 1/(2π), ``3:2`` a quotient, ``1,000`` a thousand.
Degrees, Unicode (``√``, ``π``, ``×``), a bare ``%``, absolute values and ``\frac12`` are not read.

Left out, as answers have no need of it: inequalities (which are 1 or 0 there), functions of a product without
brackets, sums, integrals, matrices, ``\max``, ``\gcd``.
"""

from __future__ import annotations

import re

from rewards.bounds import Unreadable

# Words that are functions' names to the scorer: where one follows, reading stops.
_WORDS = "tr|rows|cols|diag|norm|eye|zeros|ones|rank|gcd|lcm|floor|ceil|svd|eig|orth|pmatrix|matrix"
_TOKEN = re.compile(
    r"\s*(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d*\.\d+|\d+)(?P<percent>\\%)?"
    rf"|\s*(?P<other>\\[a-z]+|\\.|{_WORDS}|\S)",
    re.DOTALL,
)
_BLANKS = re.compile(r"\\displaystyle|\\q?quad|\\,|[~$']")
_DIVISIONS = frozenset(["/", ":", r"\div"])
_OPERATORS = _DIVISIONS | {"+", "-", "*", r"\cdot", r"\times"}
_NAMES = "frac sqrt pi sin cos tan arcsin arccos arctan sinh cosh tanh log binom lfloor lceil left"
_KNOWN = _OPERATORS | {"^", "!", "e", "_", *("\\" + name for name in _NAMES.split())}
_CLOSERS = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_ARROWS = r"\to \rightarrow \longrightarrow"
_STRAY = r". _ & \\ \} \right \choose \rgroup \rbrack \rbrace \rvert"
_STOPS = frozenset([*_CLOSERS.values(), *_WORDS.split("|"), *_ARROWS.split(), *_STRAY.split()])
# "x = 5" gives the unknown its value there, and has it.
_ASSIGNED = re.compile(r"\s*[a-df-z]\s*=(?!=)")
# What has to follow, by what goes before: a fraction's arguments stand in braces.
_WANTED = {r"\frac": "{", r"\binom": "{", "numerator": "{", r"\sqrt": "{["}
_KINDS = {r"\frac": "numerator", r"\binom": "numerator", "_": "base"}


class _Prefix:
    """Reads tokens until the scorer would stop.

    Attributes:
        pieces: what was read, respelt.
        before: the last token, or what it stands for: ``number``, ``value`` (of a closed group), ``base``, …
        groups: those that are open, each with what closes it and what it is.
        divided: for each of them and for the whole: whether a divisor is open, which takes in all factors
            that follow without a sign of multiplication.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.before = ""
        self.groups: list[tuple[str, str]] = []
        self.divided = [False]

    def stops_at(self, token: str) -> bool:
        return token in _STOPS and not self.groups and self.before != r"\log"

    def take(self, token: str) -> None:
        """Read one token. Raises ``Unreadable`` where the scorer's parser fails."""
        if self.before in _WANTED and token not in _WANTED[self.before]:
            raise Unreadable(f"{token!r} where braces should open")
        if token in _CLOSERS:
            self._open(token)
        elif token in _CLOSERS.values():
            self._close(token)
        elif token not in _KNOWN:
            raise Unreadable(f"{token!r} is outside of the scorer's grammar")
        elif token in _OPERATORS and self.before and self.before not in _OPERATORS:
            self._operate(token)
        else:
            if token == r"\frac" and self.before in ("number", "value"):
                self.pieces.append(r"\cdot ")
            self._put("" if token == r"\left" else token, self.before if token == r"\left" else token)

    def take_number(self, digits: str, percent: bool) -> None:
        if self.before in _WANTED:
            raise Unreadable(f"{digits!r} where braces should open")
        if self.before in ("number", "value", "!", r"\pi"):
            self.pieces.append(r"\cdot ")
        spelled = digits.replace(",", "")
        self._put(f"({spelled}/100)" if percent else spelled, "base" if self.before == "_" else "number")

    def end(self) -> str:
        self._end_divisor()
        return " ".join(self.pieces)

    def _put(self, piece: str, stands_for: str) -> None:
        self.pieces.append(piece)
        self.before = stands_for

    def _open(self, token: str) -> None:
        is_degree = (self.before, token) == (r"\sqrt", "[")
        self.groups.append((_CLOSERS[token], r"\sqrt" if is_degree else _KINDS.get(self.before, "value")))
        self.divided.append(False)
        self._put(token, token)

    def _close(self, token: str) -> None:
        closer, kind = self.groups.pop()
        if token != closer:
            raise Unreadable(f"{token!r} closes a group that ends in {closer!r}")
        self._end_divisor()
        self.divided.pop()
        self._put(token, kind)

    def _operate(self, token: str) -> None:
        self._end_divisor()
        self.divided[-1] = token in _DIVISIONS
        self._put("/ (" if self.divided[-1] else token, token)

    def _end_divisor(self) -> None:
        if self.divided[-1]:
            self.pieces.append(")")
        self.divided[-1] = False


def readable(text: str) -> str:
    """Return the part of a lower-case text that the scorer reads. Raises ``Unreadable`` where it fails."""
    text = _BLANKS.sub(" ", re.sub(r"\\[dt]frac", r"\\frac", text))
    assigned = _ASSIGNED.match(text)
    text = text[assigned.end() :] if assigned else text
    prefix = _Prefix()
    for match in _TOKEN.finditer(text):
        token = match["other"]
        if token is None:
            prefix.take_number(match["number"], bool(match["percent"]))
        elif prefix.stops_at(token):
            break
        elif token == "e" and text[match.end() : match.end() + 1] != "^":
            raise Unreadable("e is an unknown, but below a power")
        elif token != r"\right":
            prefix.take(token)
    return prefix.end()
