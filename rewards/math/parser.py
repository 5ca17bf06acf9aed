"""Recursive-descent parser from LaTeX and plain mathematics to ``Node``; evaluates matrix arithmetic."""

from __future__ import annotations

from rewards.math.bounds import MAX_NODES, Refused, Unreadable, check_length
from rewards.math.grammar import MISSING_OPERAND, AtomParser
from rewards.math.tokens import tokenize
from rewards.math.tree import Node, exact_value, number, symbol

_Rows = list[list[Node]]
_MAX_CELLS = 36


def is_matrix(node: Node) -> bool:
    """Return whether the node is a matrix."""
    return node.op == "matrix"


def _rows(matrix: Node) -> _Rows:
    rows = [list(row.args) for row in matrix.args]
    if len({len(row) for row in rows}) != 1 or len(rows) * len(rows[0]) > _MAX_CELLS:
        raise Refused(f"a matrix with rows of different lengths, or of more than {_MAX_CELLS} cells")
    return rows


def _matrix(rows: _Rows) -> Node:
    return Node("matrix", tuple(Node("bracket", tuple(row), name="()") for row in rows))


def _sum(nodes: tuple[Node, ...]) -> Node:
    grids = [_rows(node) for node in nodes]
    if len({(len(grid), len(grid[0])) for grid in grids}) > 1:
        raise Unreadable("matrices of different shapes added")
    height, width = len(grids[0]), len(grids[0][0])
    return _matrix([[Node("+", tuple(g[i][j] for g in grids)) for j in range(width)] for i in range(height)])


def _scaled(factor: Node, matrix: Node) -> Node:
    return _matrix([[Node("*", (factor, cell)) for cell in row] for row in _rows(matrix)])


def _product(a: Node, b: Node) -> Node:
    if not (is_matrix(a) and is_matrix(b)):
        return _scaled(a, b) if is_matrix(b) else _scaled(b, a) if is_matrix(a) else Node("*", (a, b))
    left, right = _rows(a), _rows(b)
    if len(left[0]) != len(right):
        raise Unreadable("matrices whose shapes do not fit multiplied")
    columns = list(zip(*right, strict=True))
    return _matrix([[_dot(row, list(column)) for column in columns] for row in left])


def _dot(row: list[Node], column: list[Node]) -> Node:
    return Node("+", tuple(Node("*", pair) for pair in zip(row, column, strict=True)))


def _size(node: Node) -> int:
    return 1 + sum(_size(arg) for arg in node.args)


def fold_matrices(node: Node) -> Node:
    """Return the node with matrix arithmetic evaluated. Raises ``Refused`` if the result is too large."""
    if not any(is_matrix(arg) for arg in node.args) or node.op not in ("+", "*", "neg", "/"):
        return node
    if node.op == "+":
        if not all(is_matrix(arg) for arg in node.args):
            raise Unreadable("a matrix and a number added")
        folded = _sum(node.args)
    elif node.op == "neg":
        folded = _scaled(number(-1), node.args[0])
    elif node.op == "/":
        folded = _scaled(Node("/", (number(1), node.args[1])), node.args[0])
    else:
        folded = node.args[0]
        for factor in node.args[1:]:
            folded = _product(folded, factor)
    if _size(folded) > 3 * MAX_NODES:
        raise Refused("a product of matrices that is too large")
    return folded


_RELATIONS = {
    "<": "<", ">": ">", "=": "=", "==": "=", "<=": "<=", ">=": ">=", "!=": "!=", "/=": "!=",
    r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~", r"\in": "in", r"\perp": "perp",
    r"\parallel": "parallel", r"\cong": "cong", r"\sim": "sim", r"\equiv": "=", r"\to": "to",
    r"\rightarrow": "to", r"\subset": "subset", r"\subseteq": "subset",
}  # fmt: skip
_STOPPERS = frozenset(
    [
        ")",
        "]",
        "}",
        r"\}",
        "|",
        ",",
        ";",
        "&",
        ":",
        "+",
        "-",
        r"\\",
        r"\|",
        r"\rfloor",
        r"\rceil",
        r"\end",
        r"\over",
        r"\choose",
    ]
)
_SET_OPERATIONS = frozenset([r"\cup", r"\cap", r"\setminus"])
_TIMES = frozenset(["*", r"\times", r"\cdot"])


class _Parser(AtomParser):
    """Parser of one text; each method parses one level of the grammar."""

    def relation(self) -> Node:
        first = symbol(MISSING_OPERAND) if self.next.text in _RELATIONS else self.union()
        sides, names = [first], []
        while self.next.text in _RELATIONS:
            names.append(_RELATIONS[self.take().text])
            sides.append(self.union())
        return self.node("rel", *sides, name=" ".join(names)) if names else first

    def union(self) -> Node:
        left = self.ratio()
        while self.next.text in _SET_OPERATIONS:
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
                terms = [self.node("pm", self._sum_of(terms), term, name=sign[1])]
            else:
                terms.append(self.node("neg", term) if sign == "-" else term)
        return self._sum_of(terms)

    def _sum_of(self, terms: list[Node]) -> Node:
        return fold_matrices(self.node("+", *terms)) if len(terms) > 1 else fold_matrices(terms[0])

    def product(self) -> Node:
        left = self.signed()
        while True:
            if self.next.text in _TIMES:
                self.take()
                left = self._times(left, self.signed())
            elif self.next.text in ("/", r"\div"):
                self.take()
                left = fold_matrices(self.node("/", left, self.signed()))
            elif self._starts_factor():
                left = self._implied_product(left)
            else:
                return left

    def _starts_factor(self) -> bool:
        token = self.next
        if token.kind in ("end", "rel") or token.text in _RELATIONS or token.text in _STOPPERS:
            return token.text == "|" and not self.bars
        return token.text not in _SET_OPERATIONS and token.text not in (
            r"\pm",
            r"\mp",
            "^",
            "_",
            "!",
            "%",
            "'",
        )

    def _implied_product(self, left: Node) -> Node:
        if self.next.kind == "num":
            raise Unreadable("two numbers side by side")
        starts_fraction = self.next.text == r"\frac"
        right = self.postfix()
        if starts_fraction and self._is_mixed(left, right):
            return self.node("+", left, right)
        return self._times(left, right)

    def _times(self, left: Node, right: Node) -> Node:
        return fold_matrices(self.node("*", *(left.args if left.op == "*" else (left,)), right))

    @staticmethod
    def _is_mixed(left: Node, right: Node) -> bool:
        whole = left.op == "num" and left.decimals < 0
        if not whole or right.op != "/" or any(arg.op != "num" or arg.decimals >= 0 for arg in right.args):
            return False
        top, bottom = (exact_value(arg) or 0 for arg in right.args)
        return 0 < top < bottom

    def signed(self) -> Node:
        negative = False
        while self.next.text in ("-", "+"):
            negative ^= self.take().text == "-"
        if self.next.text in (r"\pm", r"\mp"):
            sign = self.take().text[1]
            return self.node("pm", number(0), self.product(), name=sign)
        if not negative:
            return self.postfix()
        operand = self.postfix()
        while self._starts_factor() and self.next.text == r"\frac" and operand.op == "num":
            operand = self._implied_product(operand)
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
        power = self._starred() or self.script()
        if power == symbol("T") and (base.op == "matrix" or (base.op == "bracket" and base.name == "()")):
            return (
                base if base.op == "bracket" else _matrix([list(r) for r in zip(*_rows(base), strict=True)])
            )
        if base.op == "sym" and self.next.text == "_":
            self.take()
            base = symbol(f"{base.name}_{self.subscript()}")
            if base.name[:2] in ("C_", "A_", "P_") and base.name[2:].isdigit():
                return self.combination(base.name, power)
        if power.op == "sym" and power.name == "*" and base.op == "sym":
            return symbol(base.name + "*")
        return self.node("^", base, power)

    def _starred(self) -> Node | None:
        """Consume the star of ``x^*`` and ``x^{*}``, which distinguishes names."""
        for marks in (("*",), ("{", "*", "}")):
            if tuple(self.peek(i).text for i in range(len(marks))) == marks:
                self.position += len(marks)
                return symbol("*")
        return None

    def _minutes(self, degrees: Node) -> Node:
        """Add the minutes of ``30°15'`` to the degrees."""
        if self.next.kind != "num" or self.peek(1).text != "'":
            return degrees
        minutes = self.atom()
        self.expect("'")
        return self.node("deg", self.node("+", degrees.args[0], self.node("/", minutes, number(60))))

    def script(self) -> Node:
        """Parse an exponent: a group, a signed number, or one atom with its own power."""
        if self.accept("-"):
            return self.node("neg", self.script())
        base = self.atom()
        if self.next.text in ("^", "**"):
            self.take()
            return self._power(base)
        return base

    def argument(self) -> Node:
        """Parse a bracket, or the product up to the next sign or function: sin 2x cos x is sin(2x)·cos(x)."""
        if self.next.text in ("(", "{", "[", "|"):
            return self.atom()
        node = self.postfix()
        while self._starts_factor() and self.next.kind not in ("func", "num") and self.next.text != "(":
            node = self._implied_product(node)
        return node


def parse(text: str) -> Node:
    """Return the tree of cleaned ``text`` (``rewards.math.clean``).

    Raises ``Unreadable`` if it is not mathematics of this grammar, ``Refused`` if it exceeds the bounds.
    """
    check_length(text)
    parser = _Parser(tokenize(text.replace("{}", " ")))
    try:
        node = parser.relation()
    except RecursionError:
        raise Refused("nested too deeply") from None
    if parser.next.kind != "end":
        raise Unreadable(f"{parser.next.text!r} left over")
    exact_value(node)
    return node
