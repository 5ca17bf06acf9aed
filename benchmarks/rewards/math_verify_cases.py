"""Regression cases of math-verify, read from its own test files, which are not part of this project.

Only lists of literals are read, with ``ast``; no code of those files is executed.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """One case: its place, both texts, the result that math-verify's authors expect, and their precision."""

    name: str
    gold: str
    prediction: str
    expected: bool
    precision: int


_FORMS = {
    ("gold", "pred", "expected"): 6,
    ("gold", "pred", "result"): 6,
    ("gold", "pred", "expected", "precision"): 6,
}


def _literal(node: ast.expr) -> object:
    """Return a literal's value; the only formatted number, a root to 15 decimals, is computed here."""
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    if isinstance(node, ast.JoinedStr):
        return "".join(_piece(value) for value in node.values)
    return ast.literal_eval(node)


def _piece(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    call = node.value if isinstance(node, ast.FormattedValue) else None
    if isinstance(call, ast.Call) and isinstance(call.args[0], ast.Constant):
        return f"{math.sqrt(float(call.args[0].value)):.15f}"
    raise ValueError(f"line {node.lineno}: not a literal")


def _lists(path: Path) -> Iterator[tuple[str, tuple[str, ...], list[ast.expr]]]:
    """Yield each test's name, the names of its parameters and its cases."""
    for function in ast.parse(path.read_text(encoding="utf-8")).body:
        for mark in getattr(function, "decorator_list", []):
            if isinstance(mark, ast.Call) and getattr(mark.func, "attr", "") == "parametrize":
                names = tuple(name.strip() for name in ast.literal_eval(mark.args[0]).split(","))
                yield getattr(function, "name", ""), names, getattr(mark.args[1], "elts", [])


def read_cases(folder: Path) -> list[Case]:
    """Return every case of the form gold, prediction, expected under ``folder``, in order of files."""
    cases: list[Case] = []
    for path in sorted(folder.glob("test_*.py")):
        for test, names, items in _lists(path):
            if names not in _FORMS:
                continue
            for index, item in enumerate(items):
                gold, prediction, expected, *rest = _literal(item)  # type: ignore[misc]
                name = f"{path.stem}:{test}[{index}]"
                cases.append(Case(name, gold, prediction, bool(expected), rest[0] if rest else _FORMS[names]))
    return cases
