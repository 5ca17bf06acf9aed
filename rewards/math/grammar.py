"""Grammar of atoms: numbers, names, brackets, commands and functions.

``rewards.math.parser`` adds operators and relations; the token cursor bounds the number of nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from rewards.math.bounds import MAX_DEPTH, MAX_NODES, Refused, Unreadable
from rewards.math.tokens import Token
from rewards.math.tree import Node, number, symbol

_END = Token("end", "")


class Cursor:
    """Cursor over tokens that builds at most ``MAX_NODES`` nodes."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.nodes = 0
        self.bars = 0  # number of absolute values open in the innermost bracket

    def peek(self, ahead: int) -> Token:
        """Return the token ``ahead`` positions ahead, of kind ``end`` past the last."""
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else _END

    @property
    def next(self) -> Token:
        """The next token."""
        return self.peek(0)

    def take(self) -> Token:
        """Consume and return the next token."""
        token = self.next
        self.position += 1
        return token

    def accept(self, *texts: str) -> bool:
        """Consume the next token if it is one of ``texts``; return whether it was."""
        if self.next.kind not in ("num", "end") and self.next.text in texts:
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Consume the token ``text``. Raises ``Unreadable`` if the next is another."""
        if not self.accept(text):
            raise Unreadable(f"{text!r} expected, {self.next.text or 'the end'!r} found")

    def node(self, op: str, *args: Node, name: str = "") -> Node:
        """Build a node. Raises ``Refused`` for more than ``MAX_NODES``."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} operations")
        return Node(op, args, name=name)


_GREEK_NAMES = (
    "alpha beta gamma delta epsilon theta lambda mu phi omega rho sigma tau eta xi psi nu kappa zeta chi "
    "iota upsilon ell hbar emptyset Delta Omega Phi Gamma Sigma Theta Lambda Psi Pi Xi Upsilon"
)
_GREEK = frozenset("\\" + name for name in _GREEK_NAMES.split())
MISSING_OPERAND = "?"
# Accents and styles that distinguish names.
_ACCENTS = {
    r"\vec": "vec", r"\overline": "bar", r"\dot": "dot", r"\ddot": "ddot", r"\hat": "hat", r"\tilde": "tilde",
    r"\mathcal": "cal", r"\mathscr": "cal", r"\mathfrak": "frak", r"\mathbb": "bb",
}  # fmt: skip
_ROUND = (")", "]")
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_STACKED = {r"\over": "/", r"\choose": "binom"}
_CLOSERS = {
    "(": _ROUND,
    "[": _ROUND,
    "{": ("}",),
    r"\{": (r"\}",),
    r"\lfloor": (r"\rfloor",),
    r"\lceil": (r"\rceil",),
}


class AtomParser(Cursor):
    """Parser of one atom; a subclass parses the looser levels, which an atom may contain."""

    def relation(self) -> Node:
        """Parse the loosest level."""
        raise NotImplementedError

    def product(self) -> Node:
        """Parse a product, with written or implied multiplication."""
        raise NotImplementedError

    def script(self) -> Node:
        """Parse an exponent."""
        raise NotImplementedError

    def argument(self) -> Node:
        """Parse the argument of a function."""
        raise NotImplementedError

    def atom(self, single_digit: bool = False) -> Node:
        r"""Parse one atom; of a number only its first digit if ``single_digit``, as in ``\frac12``."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refused(f"nested deeper than {MAX_DEPTH} levels")
        node = self._atom(single_digit)
        self.depth -= 1
        return node

    def _atom(self, single_digit: bool) -> Node:
        token = self.next
        if token.kind == "num" and token.value is not None:
            return self._number(single_digit)
        if token.kind == "sym":
            self.take()
            return self._named(token.text)
        if token.kind == "func":
            self.take()
            return self._function(token.text)
        if token.text in _CLOSERS:
            return self._bracket(self.take().text)
        if token.text == "|":
            return self._absolute()
        if token.kind == "cmd":
            return self._command(self.take().text)
        raise Unreadable(f"{token.text or 'the end'!r} where a value should be")

    def _number(self, single_digit: bool) -> Node:
        token = self.next
        assert token.value is not None
        if single_digit and token.text.isdigit() and len(token.text) > 1:
            self.tokens[self.position] = Token("num", token.text[1:], type(token.value)(int(token.text[1:])))
            return number(int(token.text[0]))
        self.take()
        return number(token.value, token.decimals)

    def _named(self, name: str) -> Node:
        if self.accept("_"):
            name = f"{name}_{self.subscript()}"
            if name[:2] in ("C_", "A_", "P_") and name[2:].isdigit() and self.next.text == "^":
                self.take()
                return self.combination(name, self.script())
        if name in ("f", "g", "h") and self._inverse_mark():
            name = f"{name}^-1"
        if name[:1] in ("f", "g", "h") and name[1:] in ("", "^-1") and self.next.text == "(":
            argument = self.atom()
            inner = _as_text(argument)
            return symbol(f"{name}{inner}" if argument.op == "bracket" else f"{name}({inner})")
        return symbol(name)

    def _inverse_mark(self) -> bool:
        """Consume the exponent of an inverse function, ``^{-1}`` before a bracket, if it is there."""
        for marks in (("^", "{", "-", "1", "}", "("), ("^", "-", "1", "(")):
            if tuple(self.peek(i).text for i in range(len(marks))) == marks:
                self.position += len(marks) - 1
                return True
        return False

    def combination(self, name: str, k: Node) -> Node:
        """Return the node of ``C_5^2`` or ``A_5^2``, the school notation of combinations and arrangements."""
        total = number(int(name[2:]))
        if k.op != "num":
            return self.node("^", symbol(name), k)
        count = self.node("binom", total, k)
        return count if name[0] == "C" else self.node("*", count, self.node("!", k))

    def subscript(self) -> str:
        """Return a subscript as text."""
        if not self.accept("{"):
            return self.take().text.lstrip("\\")
        texts = []
        while self.next.kind != "end" and self.next.text != "}":
            texts.append(self.take().text.lstrip("\\"))
        self.expect("}")
        return "".join(texts)

    def _bracket(self, opener: str) -> Node:
        outside, self.bars = self.bars, 0
        items = [] if self.next.text in _CLOSERS[opener] else [self.relation()]
        while self.accept(",", ";"):
            items.append(self.relation())
        if opener == "{" and len(items) == 1 and self.next.text in _STACKED:
            items = [self.node(_STACKED[self.take().text], items[0], self.relation())]
        closer, self.bars = self.take().text, outside
        if closer not in _CLOSERS[opener]:
            raise Unreadable(f"{closer or 'the end'!r} closes {opener!r}")
        return self._close_bracket(opener, closer, items)

    def _absolute(self) -> Node:
        self.expect("|")
        self.bars += 1
        inner = self.relation()
        self.bars -= 1
        self.expect("|")
        return self.node("abs", inner)

    def _close_bracket(self, opener: str, closer: str, items: list[Node]) -> Node:
        if opener in (r"\lfloor", r"\lceil") and len(items) == 1:
            return self.node("floor" if opener == r"\lfloor" else "ceil", items[0])
        if opener == r"\{" and not items:
            return symbol("emptyset")
        if _is_matrix(opener, items):
            return self.node("matrix", *(self.node("bracket", *row.args, name="()") for row in items))
        if opener == r"\{" or (opener == "{" and len(items) > 1):
            return self.node("set", *items, name="" if opener == r"\{" else "{}")
        if len(items) == 1:
            return items[0]
        return self.node("bracket", *items, name=opener + closer)

    def _group(self) -> Node:
        r"""Parse an argument of a command such as ``\frac``: a group, or a single digit or letter."""
        return self.atom(single_digit=True)

    def _command(self, name: str) -> Node:
        if name in _GREEK:
            return self._named(name[1:])
        if name in _ACCENTS:
            return self._named(f"{_ACCENTS[name]} {_as_text(self._group())}")
        readers: dict[str, Callable[[], Node]] = {
            r"\pi": lambda: symbol("pi"),
            r"\infty": lambda: symbol("oo"),
            r"\frac": lambda: self.node("/", self._group(), self._group()),
            r"\binom": lambda: self.node("binom", self._group(), self._group()),
            r"\sqrt": self._root,
            r"\angle": self._angle,
            r"\triangle": lambda: symbol("triangle " + "".join(self._points())),
            r"\begin": self._matrix,
            r"\determinant": self._determinant,
            r"\otherwise": lambda: symbol("otherwise"),
            r"\top": lambda: symbol("T"),
            r"\sum": lambda: self._series("sum"),
            r"\prod": lambda: self._series("prod"),
        }
        if name not in readers:
            raise Unreadable(f"the command {name}")
        return readers[name]()

    def _series(self, op: str) -> Node:
        r"""Parse ``\sum_{k=0}^{n} …`` into the index, its first and last value, and the body."""
        self.expect("_")
        start = self.atom()
        self.expect("^")
        last = self.script()
        if start.op != "rel" or start.name != "=" or start.args[0].op != "sym":
            raise Unreadable("a sum without its index")
        return self.node(op, start.args[0], start.args[1], last, self.product())

    def _root(self) -> Node:
        if self.next.text != "[":
            return self.node("root", self._group(), number(2))
        self.take()
        degree = self.relation()
        self.expect("]")
        return self.node("root", self._group(), degree)

    def _points(self) -> list[str]:
        """Return the letters (with primes) or the number that name an angle or a triangle."""
        points: list[str] = []
        while self.next.kind in ("sym", "num") or self.next.text in _GREEK or self.next.text == "'":
            text = self.take().text.lstrip("\\")
            if text == "'" and points:
                points[-1] += text
            else:
                points.append(text)
        if not points:
            raise Unreadable("an angle or triangle without a name")
        return points

    def _angle(self) -> Node:
        points = self._points()
        return symbol("angle " + "".join(min(points, points[::-1])))

    def _matrix(self) -> Node:
        rows, row = [], [self.relation()]
        while not self.accept(r"\end"):
            if self.next.text in (",", ";") and self.peek(1).text in ("&", r"\\", r"\end"):
                self.take()
            elif self.accept(r"\\"):
                rows.append(row)
                row = [] if self.next.text == r"\end" else [self.relation()]
            else:
                self.expect("&")
                row.append(self.relation())
        rows += [row] if row else []
        return self.node("matrix", *(self.node("bracket", *cells, name="()") for cells in rows))

    def _determinant(self) -> Node:
        self.expect(r"\begin")
        return _expanded([list(row.args) for row in self._matrix().args])

    def _function(self, name: str) -> Node:
        base = self.script() if name == "log" and self.accept("_") else None
        power = self.script() if self.accept("^") else None
        if power == number(-1, -1) or power == Node("neg", (number(1),)):
            name, power = _INVERSE.get(name, name), None if name in _INVERSE else power
        node = self._call(name, self.argument(), base)
        return self.node("^", node, power) if power is not None else node

    def _call(self, name: str, argument: Node, base: Node | None) -> Node:
        if name == "sqrt":
            return self.node("root", argument, number(2))
        if name == "exp":
            return self.node("^", symbol("e"), argument)
        bases = {"ln": symbol("e"), "lg": number(10), "log": base or number(10)}
        if name in bases:
            return self.node("log", argument, bases[name])
        if name in ("gcd", "lcm"):
            return self.node(name, *(argument.args if argument.op in ("set", "bracket") else (argument,)))
        if name in ("max", "min") and argument.op in ("set", "bracket"):
            return self.node(name, *argument.args)
        return self.node(name, argument)


_MAX_DETERMINANT = 4


def _expanded(rows: list[list[Node]]) -> Node:
    """Return the determinant of a square matrix by expansion along its first row."""
    size = len(rows)
    if size > _MAX_DETERMINANT or any(len(row) != size for row in rows):
        raise Refused(f"a determinant that is not square, or of more than {_MAX_DETERMINANT} rows")
    if size == 1:
        return rows[0][0]
    terms = []
    for j, cell in enumerate(rows[0]):
        minor = _expanded([row[:j] + row[j + 1 :] for row in rows[1:]])
        term = Node("*", (cell, minor))
        terms.append(Node("neg", (term,)) if j % 2 else term)
    return Node("+", tuple(terms))


def _is_matrix(opener: str, items: list[Node]) -> bool:
    """Return whether this is a matrix as programs write it: ``[[1, 2], [3, 4]]``."""
    rows = [item for item in items if item.op == "bracket" and item.name == "[]"]
    return (
        opener == "[" and len(items) > 1 and len(rows) == len(items) and len({len(r.args) for r in rows}) == 1
    )


def _as_text(node: Node) -> str:
    """Return a tree as text, for use in names (such as the name under an arrow)."""
    inner = ",".join(_as_text(arg) for arg in node.args)
    return node.name or (str(node.value) if node.value is not None else f"{node.op}({inner})")
