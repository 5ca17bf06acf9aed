r"""Units as text: "m/s^2", "square meters", "km per hour", "\text{kg}\cdot m s^{-1}", "千米每小时"."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache

from rewards.math.amounts.units import Unit, named_unit, product

_MAX_CHARS, _MAX_FACTORS, _MAX_MEANINGS = 80, 8, 4
_SPELLINGS = [
    (re.compile(r"\\text\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\\mu(?![a-zA-Z])\s*"), "μ"),
    (re.compile(r"\\(?:Omega|ohm)(?![a-zA-Z])"), "Ω"),
    (re.compile(r"\\(?:cdot|times)(?![a-zA-Z])"), "·"),
    (re.compile(r"\\min(?![a-zA-Z])"), " min "),
    (re.compile(r"\\sec(?![a-zA-Z])"), " s "),
    (re.compile(r"\^\{\\circ\}\s*"), "°"),
    (re.compile(r"\^\s*\{?\s*([-+]?\d)\s*\}?"), r"^\1 "),
    (re.compile(r"\b(sq|cu)\."), r"\1 "),
    (re.compile(r"[$]"), " $ "),
]
_TOKEN = re.compile(
    r"\s*(?:(?P<han>[\u4e00-\u9fff]+)|(?P<name>[A-Za-zμÅΩ°%‰¢€£¥₹₩₽₱₪฿₫₦$]+)(?P<glued>-?\d(?![\d.]))?"
    r"|\^(?P<power>[-+]?\d)|(?P<sign>[·*/()-])|(?P<dot>\.))"
)
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_AFTER = {"squared": 2, "cubed": 3}
_PER = frozenset(["per", "each", "every", "a", "an", "/"])


def plain_spelling(text: str) -> str:
    """Return the text of a unit without LaTeX."""
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text


def _tokens(text: str) -> list[str] | None:
    """Return names, "^2", "·", "/", "(" and ")"; None if anything else is in the text."""
    tokens: list[str] = []
    position, text = 0, text.rstrip(" .")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            return None
        position = match.end()
        han, name, glued, power, sign, _ = match.groups()
        if han:
            tokens += (
                [p for piece in han.split("每") for p in ("/", piece)][1:]
                if han[0] != "每"
                else ["/", han[1:]]
            )
        elif name:
            tokens += [name, f"^{glued}"] if glued else [name]
        elif power:
            tokens.append(f"^{power}")
        elif sign:
            tokens.append("·" if sign in "*-" else sign)
    return [token for token in tokens if token]


class _Reader:
    """Reader of one unit: collects its factors with their powers."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.position = tokens, 0
        self.factors: list[tuple[Unit, int]] = []

    @property
    def next(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def read(self, sign: int = 1, nested: bool = False) -> bool:
        """Read a product of factors; return whether it is one. What follows "/" or "per" divides."""
        below = False
        while self.next and self.next != ")":
            starts = self.position or self.next in ("/", "per")
            if (
                self.next in _PER
                and starts
                and self.tokens[self.position : self.position + 2] != ["per", "cent"]
            ):
                self.position, below = self.position + 1, True
            elif self.next == "·":
                self.position += 1
            if not self._factor(-sign if below else sign, nested):
                return False
        return bool(self.factors)

    def _factor(self, sign: int, nested: bool) -> bool:
        if self.next == "(" and not nested:
            self.position += 1
            closed = self.read(sign, nested=True) and self.next == ")"
            self.position += 1
            return closed
        before = _POWER_WORDS.get(self.next.casefold(), 0)
        self.position += bool(before)
        unit = self._name()
        if unit is None or len(self.factors) >= _MAX_FACTORS:
            return False
        self.factors.append((unit, sign * (before or 1) * self._power()))
        return True

    def _name(self) -> Unit | None:
        """Read the longest name, of at most four words ("pounds per square inch")."""
        for count in (4, 3, 2, 1):
            words = self.tokens[self.position : self.position + count]
            unit = named_unit(_singular(words)) if len(words) == count else None
            if unit:
                self.position += count
                return unit
        return None

    def _power(self) -> int:
        token = self.next
        power = int(token[1:]) if token.startswith("^") else _AFTER.get(token.casefold(), 0)
        self.position += bool(power)
        return power or 1


def _singular(words: list[str]) -> str:
    """Return a name of several words in the table's spelling: "degree celsius" for "degrees Celsius"."""
    first = words[0]
    return " ".join([first.removesuffix("s").casefold(), *words[1:]]).casefold() if len(words) > 1 else first


@lru_cache(maxsize=4096)
def find_unit(text: str) -> Unit | None:
    """Return the unit of measure that ``text`` names, or None. Counted nouns are none."""
    if not text or len(text) > _MAX_CHARS:
        return None
    tokens = _tokens(plain_spelling(text))
    if not tokens:
        return None
    reader = _Reader(tokens)
    if not reader.read() or reader.position != len(tokens):
        return None
    return combined(text.strip(), reader.factors)


def combined(name: str, factors: list[tuple[Unit, int]]) -> Unit | None:
    """Return the product of the factors in each of their meanings."""
    choices = [(unit, *unit.others) for unit, _ in factors]
    powers = [power for _, power in factors]
    found: list[Unit] = []
    for units in itertools.islice(itertools.product(*choices), _MAX_MEANINGS):
        made = product(name, list(zip(units, powers, strict=True)))
        if made is None or (made.measure is None and len(units) > 1):
            continue
        found.append(made)
    if not found:
        return None
    first = found[0]
    return Unit(first.name, first.measure, first.factor, first.pi, first.offset, tuple(found[1:]))
