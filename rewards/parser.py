r"""Read mathematics as people write it in answers: a small recursive-descent parser from LaTeX to ``Node``.

Grammar, loosest first: relations (``<``, ``=``, ``\perp`` …), ``\cup`` and ``\cap``, ratios ``:``, sums,
products (written or implied), signs, powers and other marks behind, atoms. Everything is bounded: length,
depth, number of nodes, digits. It is its own parser because a general one (latex2sympy2_extended) was
measured to fold letters to lower case, to turn decimals into binary floats, to hand digits to ``sympify``,
not to read ``\frac94`` and ``0.\overline{3}``, and take 1–70 ms for what takes 0.1 ms here.
"""

from __future__ import annotations

from rewards.bounds import MAX_DEPTH, Refused, Unreadable, check_length
from rewards.cursor import Cursor
from rewards.matrices import fold
from rewards.tokens import Token, tokenize
from rewards.tree import Node, exact, number, symbol

_RELATIONS = {
    "<": "<", ">": ">", "=": "=", "==": "=", "<=": "<=", ">=": ">=", "!=": "!=", "/=": "!=",
    r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~", r"\in": "in", r"\perp": "perp",
    r"\parallel": "parallel", r"\cong": "cong", r"\sim": "sim", r"\equiv": "=", r"\to": "to",
    r"\rightarrow": "to", r"\subset": "subset", r"\subseteq": "subset",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon theta lambda mu phi omega rho sigma tau eta xi psi nu kappa zeta ell "
    "emptyset Delta Omega Phi Gamma Sigma Theta Lambda"
)
_GREEK = frozenset("\\" + name for name in _GREEK_NAMES.split())
_ROUND = (")", "]")
_CLOSERS = {
    "(": _ROUND,
    "[": _ROUND,
    "{": ("}",),
    r"\{": (r"\}",),
    r"\lfloor": (r"\rfloor",),
    r"\lceil": (r"\rceil",),
}
_STOPPERS = frozenset(
    [")", "]", "}", r"\}", "|", ",", ";", "&", ":", "+", "-", r"\\", r"\|", r"\rfloor", r"\rceil", r"\end"]
)
_TIMES = frozenset(["*", r"\times", r"\cdot"])
_HOLE = "?"


class _Parser(Cursor):
    """Reads one text; each method reads one level of the grammar and leaves the rest."""

    def relation(self) -> Node:
        first = symbol(_HOLE) if self.next.text in _RELATIONS else self.union()
        sides, names = [first], []
        while self.next.text in _RELATIONS:
            names.append(_RELATIONS[self.take().text])
            sides.append(self.union())
        return self.node("rel", *sides, name=" ".join(names)) if names else first

    def union(self) -> Node:
        left = self.ratio()
        while self.next.text in (r"\cup", r"\cap"):
            left = self.node(self.take().text[1:], left, self.ratio())
        return left

    def ratio(self) -> Node:
        terms = [self.sum()]
        while self.accept(":"):
            terms.append(self.sum())
        return self.node(":", *terms) if len(terms) > 1 else terms[0]

    def sum(self) -> Node:
        terms = [self.product()]
        while self.next.text in ("+", "-", r"\pm", r"\mp"):
            sign = self.take().text
            term = self.product()
            if sign in (r"\pm", r"\mp"):
                terms = [self.node("pm", self._added(terms), term)]
            else:
                terms.append(self.node("neg", term) if sign == "-" else term)
        return self._added(terms)

    def _added(self, terms: list[Node]) -> Node:
        return fold(self.node("+", *terms)) if len(terms) > 1 else fold(terms[0])

    def product(self) -> Node:
        left = self.signed()
        while True:
            if self.next.text in _TIMES:
                self.take()
                left = self._times(left, self.signed())
            elif self.next.text in ("/", r"\div"):
                self.take()
                left = fold(self.node("/", left, self.signed()))
            elif self._starts_factor():
                left = self._implied(left)
            else:
                return left

    def _starts_factor(self) -> bool:
        token = self.next
        if token.kind in ("end", "rel") or token.text in _RELATIONS or token.text in _STOPPERS:
            return token.text == "|" and not self.bars
        return token.text not in (r"\cup", r"\cap", r"\pm", r"\mp", "^", "_", "!", "%", "'")

    def _implied(self, left: Node) -> Node:
        if self.next.kind == "num":
            raise Unreadable("two numbers side by side")
        starts_fraction = self.next.text == r"\frac"
        right = self.postfix()
        if starts_fraction and self._is_mixed(left, right):
            return self.node("+", left, right)
        return self._times(left, right)

    def _times(self, left: Node, right: Node) -> Node:
        return fold(self.node("*", *(left.args if left.op == "*" else (left,)), right))

    @staticmethod
    def _is_mixed(left: Node, right: Node) -> bool:
        whole = left.op == "num" and left.decimals < 0
        if not whole or right.op != "/" or any(arg.op != "num" or arg.decimals >= 0 for arg in right.args):
            return False
        top, bottom = (exact(arg) or 0 for arg in right.args)
        return 0 < top < bottom

    def signed(self) -> Node:
        negative = False
        while self.next.text in ("-", "+"):
            negative ^= self.take().text == "-"
        if self.accept(r"\pm", r"\mp"):
            return self.node("pm", number(0), self.product())
        if not negative:
            return self.postfix()
        operand = self.postfix()
        while self._starts_factor() and self.next.text == r"\frac" and operand.op == "num":
            operand = self._implied(operand)
        return self.node("neg", operand)

    def postfix(self) -> Node:
        node = self.atom()
        while True:
            if self.next.text == "^" or self.next.text == "**":
                self.take()
                node = self._power(node)
            elif self.accept("!"):
                node = self.node("!", node)
            elif self.accept("%"):
                node = self.node("%", node)
            elif node.op == "sym" and self.accept("'"):
                node = symbol(node.name + "'")
            else:
                return node

    def _power(self, base: Node) -> Node:
        if self.next.text == "{" and self.peek(1).text == r"\circ" and self.peek(2).text == "}":
            self.position += 3
            return self._minutes(self.node("deg", base))
        return self.node("^", base, self._script())

    def _minutes(self, degrees: Node) -> Node:
        """``30°15'`` as degrees."""
        if self.next.kind != "num" or self.peek(1).text != "'":
            return degrees
        minutes = self.atom()
        self.expect("'")
        return self.node("deg", self.node("+", degrees.args[0], self.node("/", minutes, number(60))))

    def _script(self) -> Node:
        """What stands after ``^``: a group, a signed number, or one atom with its own power."""
        if self.accept("-"):
            return self.node("neg", self._script())
        base = self.atom()
        if self.next.text in ("^", "**"):
            self.take()
            return self._power(base)
        return base

    def atom(self, single_digit: bool = False) -> Node:
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
            name = f"{name}_{self._subscript()}"
            if name[:2] in ("C_", "A_", "P_") and name[2:].isdigit() and self.next.text == "^":
                return self._chosen(name)
        if name in ("f", "g", "h") and self.next.text == "(":
            argument = self.atom()
            return symbol(f"{name}({_spelled(argument)})")
        return symbol(name)

    def _chosen(self, name: str) -> Node:
        """``C_5^2`` and ``A_5^2``, as combinations and arrangements are written at school."""
        self.take()
        total, k = number(int(name[2:])), self._script()
        if k.op != "num":
            return self.node("^", symbol(name), k)
        chosen = self.node("binom", total, k)
        return chosen if name[0] == "C" else self.node("*", chosen, self.node("!", k))

    def _subscript(self) -> str:
        if not self.accept("{"):
            return self.take().text.lstrip("\\")
        parts = []
        while self.next.kind != "end" and self.next.text != "}":
            parts.append(self.take().text.lstrip("\\"))
        self.expect("}")
        return "".join(parts)

    def _bracket(self, opener: str) -> Node:
        outside, self.bars = self.bars, 0
        items = [] if self.next.text in _CLOSERS[opener] else [self.relation()]
        while self.accept(",", ";"):
            items.append(self.relation())
        closer, self.bars = self.take().text, outside
        if closer not in _CLOSERS[opener]:
            raise Unreadable(f"{closer or 'the end'!r} closes {opener!r}")
        return self._closed(opener, closer, items)

    def _absolute(self) -> Node:
        self.expect("|")
        self.bars += 1
        inner = self.relation()
        self.bars -= 1
        self.expect("|")
        return self.node("abs", inner)

    def _closed(self, opener: str, closer: str, items: list[Node]) -> Node:
        if opener in (r"\lfloor", r"\lceil") and len(items) == 1:
            return self.node("floor" if opener == r"\lfloor" else "ceil", items[0])
        if opener == r"\{" or (opener == "{" and len(items) > 1):
            return self.node("set", *items, name="" if opener == r"\{" else "{}")
        if len(items) == 1:
            return items[0]
        return self.node("bracket", *items, name=opener + closer)

    def _group(self) -> Node:
        r"""An argument of ``\frac`` and kin: a group, or a single digit or letter."""
        return self.atom(single_digit=True)

    def _command(self, name: str) -> Node:
        if name in _GREEK:
            return self._named(name[1:])
        reader = {
            r"\pi": lambda: symbol("pi"),
            r"\infty": lambda: symbol("oo"),
            r"\frac": lambda: self.node("/", self._group(), self._group()),
            r"\binom": lambda: self.node("binom", self._group(), self._group()),
            r"\sqrt": self._root,
            r"\vec": lambda: symbol(f"vec {_spelled(self._group())}"),
            r"\overline": lambda: symbol(f"bar {_spelled(self._group())}"),
            r"\angle": self._angle,
            r"\triangle": lambda: symbol("triangle " + "".join(self._points())),
            r"\begin": self._matrix,
            r"\sum": lambda: self._series("sum"),
            r"\prod": lambda: self._series("prod"),
        }.get(name)
        if reader is None:
            raise Unreadable(f"the command {name}")
        return reader()

    def _series(self, op: str) -> Node:
        r"""``\sum_{k=0}^{n} …``: the index, its first and last value, what is added."""
        self.expect("_")
        start = self.atom()
        self.expect("^")
        last = self._script()
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
        """The letters (with primes) or the number that name an angle or a triangle."""
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
            if self.accept(r"\\"):
                rows.append(row)
                row = [] if self.next.text == r"\end" else [self.relation()]
            else:
                self.expect("&")
                row.append(self.relation())
        rows += [row] if row else []
        return self.node("matrix", *(self.node("bracket", *cells, name="()") for cells in rows))

    def _function(self, name: str) -> Node:
        base = self._script() if name == "log" and self.accept("_") else None
        power = self._script() if self.accept("^") else None
        node = self._call(name, self._argument(), base)
        return self.node("^", node, power) if power is not None else node

    def _call(self, name: str, argument: Node, base: Node | None) -> Node:
        if name == "sqrt":
            return self.node("root", argument, number(2))
        if name == "exp":
            return self.node("^", symbol("e"), argument)
        bases = {"ln": symbol("e"), "lg": number(10), "log": base or number(10)}
        if name in bases:
            return self.node("log", argument, bases[name])
        return self.node(name, argument)

    def _argument(self) -> Node:
        """A bracket, or the product up to the next sign or function: sin 2x cos x is sin(2x)·cos(x)."""
        if self.next.text in ("(", "{", "[", "|"):
            return self.atom()
        node = self.postfix()
        while self._starts_factor() and self.next.kind not in ("func", "num") and self.next.text != "(":
            node = self._implied(node)
        return node


def _spelled(node: Node) -> str:
    """A tree as text, where only its spelling matters (the name under an arrow)."""
    inner = ",".join(_spelled(arg) for arg in node.args)
    return node.name or (str(node.value) if node.value is not None else f"{node.op}({inner})")


def parse(text: str) -> Node:
    """Return the tree of cleaned ``text`` (``rewards.clean``).

    Raises ``Unreadable`` if it is not mathematics that this grammar knows, ``Refused`` if it is too large.
    """
    check_length(text)
    parser = _Parser(tokenize(text.replace("{}", " ")))
    try:
        node = parser.relation()
    except RecursionError:
        raise Refused("nested too deeply") from None
    if parser.next.kind != "end":
        raise Unreadable(f"{parser.next.text!r} left over")
    exact(node)
    return node
