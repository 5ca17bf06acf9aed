"""Rules in a file that is named without a function: found in its syntax tree, without importing it."""

from __future__ import annotations

import ast
from pathlib import Path

from rewards.verdict import RuleError

_SHOWN = 8
_BY_SHAPE, _NO_RULE = 2, 3
_SHAPE = "def rule(completion, example, …)"


def missing_function(reference: str) -> RuleError:
    """Return the error for a path without ``:function``; it names the file's rules and what to write.

    Args:
        reference: the path as given, ``path/to/file.py`` or ``path/to/file.py:``.
    """
    file = reference.rstrip(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        return RuleError(f"there is no file {path}; a rule is named path/to/file.py:function")
    try:
        names = rule_names(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError) as error:
        return RuleError(f"{path} cannot be read as Python: {error}; fix the file")
    if not names:
        return RuleError(f"{path} has no function that can be a rule; write one: {_SHAPE}")
    others = f" (or {', '.join(names[1:_SHOWN])})" if len(names) > 1 else ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return RuleError(
        f"{file} is a file, and a rule is a function in it: write {file}:{names[0]}{others}{more}; "
        f"to try it: mm-cpgd rewards test {file}:{names[0]} CASES.jsonl"
    )


def rule_names(source: str) -> list[str]:
    """Return the names of the top-level functions that can be rules, the likeliest first.

    These are the ones with the decorator ``@rule`` (under its name), then those whose first parameter is
    called ``completion``; if there are none, the other public ones with two required parameters. Raises
    ``SyntaxError``.
    """
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    likely = [node for node in functions if _rank(node) < _BY_SHAPE]
    possible = likely or [node for node in functions if _rank(node) == _BY_SHAPE]
    return [_registered_name(node) or node.name for node in sorted(possible, key=_rank)]


def _rank(node: ast.FunctionDef) -> int:
    """Return 0 for a decorated rule, 1 for one by its first parameter, 2 for one by its shape, else 3."""
    if _registered_name(node):
        return 0
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    required = len(positional) - len(node.args.defaults)
    if len(positional) < 2 or node.name.startswith("_"):
        return _NO_RULE
    if positional[0] == "completion":
        return 1
    return _BY_SHAPE if required == 2 else _NO_RULE


def _registered_name(node: ast.FunctionDef) -> str | None:
    """Return the name under which ``@rule`` or ``@rule("name")`` registers the function, else None."""
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
        if name != "rule":
            continue
        first = decorator.args[0] if isinstance(decorator, ast.Call) and decorator.args else None
        given = first.value if isinstance(first, ast.Constant) else None
        return given if isinstance(given, str) else node.name
    return None
