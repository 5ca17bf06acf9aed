"""Numbers on the structure of a checkout: file sizes, folders, cycles, arrows between packages.

    python -m benchmarks.structure              # this checkout
    python -m benchmarks.structure ../other     # another one, for a comparison

Imports are read from the syntax trees; nothing of the checkout is run. Imports inside functions and under
``TYPE_CHECKING`` count as arrows, but not for cycles, which concern what is imported at module level.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

PACKAGES = ("mm_cpgd", "rewards", "data", "eval")


@dataclass(frozen=True)
class Module:
    """A file of the library.

    Attributes:
        name: dotted name; a package is named without ``__init__``.
        path: relative to the root.
        lines: number of lines.
        tree: syntax tree.
    """

    name: str
    path: Path
    lines: int
    tree: ast.Module


def read_modules(root: Path) -> dict[str, Module]:
    """Return all modules of the library by name."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            path = file.relative_to(root)
            name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            text = file.read_text(encoding="utf-8")
            found[name] = Module(name, path, text.count("\n"), ast.parse(text))
    return found


def imports(modules: Mapping[str, Module], *, top_level: bool = False) -> dict[str, set[str]]:
    """Return the modules that each module imports.

    Args:
        modules: of the library.
        top_level: leave out imports inside functions and under ``TYPE_CHECKING``.
    """
    return {
        name: {other for other in _imported(module, modules, top_level) if other in modules} - {name}
        for name, module in modules.items()
    }


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            group = stack[place:]
            del stack[place:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def entries(modules: Mapping[str, Module]) -> Counter[Path]:
    """Return the entries of each folder: its modules, and its subfolders that hold modules."""
    counts: Counter[Path] = Counter()
    folders = set()
    for module in modules.values():
        counts[module.path.parent] += module.path.name != "__init__.py"
        folders.update(module.path.parents[:-1])
    for folder in folders:
        if folder.parent != Path():
            counts[folder.parent] += 1
    return counts


def arrows(graph: Mapping[str, set[str]], start: str, end: str) -> list[tuple[str, str]]:
    """Return the imports from modules below ``start`` of modules below ``end``, both dotted prefixes."""
    return [
        (name, other)
        for name, others in sorted(graph.items())
        for other in sorted(others)
        if _below(name, start) and _below(other, end)
    ]


def copied_arguments(modules: Mapping[str, Module]) -> int:
    """Return how many constructor arguments of mm_cpgd are stored as ``self.x = x``."""
    return sum(
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.targets[0].attr == node.value.id
        for name, module in modules.items()
        if _below(name, "mm_cpgd")
        for node in ast.walk(module.tree)
    )


def _imported(module: Module, modules: Mapping[str, Module], top_level: bool) -> Iterator[str]:
    for node in _top_statements(module.tree) if top_level else ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules else node.module


def _top_statements(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.orelse
        elif isinstance(node, (ast.If, ast.Try)):
            yield from node.body
        else:
            yield node


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def main(root: Path) -> None:
    """Print the numbers."""
    modules = read_modules(root)
    graph = imports(modules)
    sizes = {module.path: module.lines for module in modules.values()}
    largest = max(sizes, key=lambda path: sizes[path])
    importers = Counter(other for others in graph.values() for other in others)
    plain = [
        name for name, module in modules.items() if module.path.name not in ("__init__.py", "__main__.py")
    ]
    outside = [
        pair
        for pair in arrows(graph, "mm_cpgd", "eval")
        if not pair[0].startswith(("mm_cpgd.cli.", "mm_cpgd.cli_")) and pair[0] != "mm_cpgd.cli"
    ]
    rows = {
        "files": len(sizes),
        "median lines": round(median(sizes.values())),
        "median lines without __init__.py": round(median(modules[name].lines for name in plain)),
        "largest file": f"{sizes[largest]} ({largest})",
        "largest folders": ", ".join(
            f"{folder} {count}" for folder, count in entries(modules).most_common(4)
        ),
        "import cycles at module level": len(cycles(imports(modules, top_level=True))),
        "imports of eval by mm_cpgd outside the command line": len(outside),
        "modules with one importer": sum(importers[name] == 1 for name in plain),
        "constructor arguments stored one by one in mm_cpgd": copied_arguments(modules),
    }
    for name, value in rows.items():
        print(f"{name:52}{value}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
