"""Sums, differences, products and multiples of matrices, folded into the one matrix that they are."""

from __future__ import annotations

from rewards.bounds import MAX_NODES, Refused, Unreadable
from rewards.tree import Node, number

_Rows = list[list[Node]]
_MAX_CELLS = 36


def is_matrix(node: Node) -> bool:
    """Whether the node is a matrix written out."""
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


def fold(node: Node) -> Node:
    """Return the node with its arithmetic on matrices done. Raises ``Refused`` where that grows too large."""
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
