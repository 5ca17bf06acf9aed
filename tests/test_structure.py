"""Directions of imports, sizes, docstrings and places of tests, as docs/architecture.md states them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.structure import arrows, cycles, entries, imports, read_modules
from tests.paths import DOCS, ROOT

MODULES = read_modules(ROOT)
GRAPH = imports(MODULES)
# From the top: a package may import those of later rows, never those of earlier rows.
LAYERS = (
    ("cli",),
    ("study", "preflight", "tiny"),
    ("training",),
    ("guard", "rollout", "report"),
    ("policy",),
    ("algorithms",),
    ("checkpoint", "tracking", "distributed", "interrupt"),
    ("config",),
    ("environments",),
    ("errors",),
    ("import_guard",),
)
FOLDERS = "mm_cpgd|rewards|data|eval|configs|tests|benchmarks"
PLACE = rf"(?<![\w/.-])((?:{FOLDERS})/[\w/]+\.(?:py|yaml|jinja))\b"
# A user's own files in examples.
EXAMPLES = {"benchmarks/gauges.py"}
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def layer(module: str) -> int | None:
    parts = module.split(".")
    return LAYER[parts[1]] if parts[0] == "mm_cpgd" and len(parts) > 1 and parts[1] in LAYER else None


def test_no_modules_import_each_other() -> None:
    assert cycles(imports(MODULES, top_level=True)) == []


def test_every_package_of_mm_cpgd_has_a_layer() -> None:
    names = {name.split(".")[1] for name in MODULES if name.startswith("mm_cpgd.")}
    assert names - {"__main__"} == set(LAYER)


def test_no_import_runs_against_the_order_of_layers() -> None:
    against = [
        (name, other)
        for name, others in GRAPH.items()
        for other in others
        if (mine := layer(name)) is not None and (its := layer(other)) is not None and its < mine
    ]
    assert against == []


def test_only_the_command_line_imports_eval() -> None:
    assert [pair for pair in arrows(GRAPH, "mm_cpgd", "eval") if not pair[0].startswith("mm_cpgd.cli")] == []


@pytest.mark.parametrize("package", ["rewards", "data"])
def test_rewards_and_data_import_nothing_else_of_the_project(package: str) -> None:
    others = {
        other.split(".")[0] for name in MODULES if name.split(".")[0] == package for other in GRAPH[name]
    }
    assert others <= {package}


@pytest.mark.parametrize("package", ["rewards", "rewards.compose", "rewards.adapters", "rewards.registry"])
def test_rewards_load_no_torch(package: str) -> None:
    code = f"import sys, {package}; assert not {{'torch', 'mm_cpgd', 'data', 'eval'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_eval_has_no_user_interface() -> None:
    users = [
        (name, module)
        for name, found in MODULES.items()
        if name.split(".")[0] == "eval"
        for node in ast.walk(found.tree)
        for module in imported(node)
        if module.split(".")[0] in ("typer", "rich", "click") or module.startswith("mm_cpgd.cli")
    ]
    assert users == []


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_files_and_folders_stay_of_a_size() -> None:
    assert [str(one.path) for one in MODULES.values() if one.lines > 450] == []
    assert [(str(folder), count) for folder, count in entries(MODULES).items() if count > 19] == []


def test_module_docstrings_open_with_a_noun_phrase() -> None:
    openings = r"(What|Which|From|How|Whether|Where|When|Who|Why|If|Everything|All that)\b"
    found = {name: ast.get_docstring(module.tree) or "" for name, module in MODULES.items()}
    assert [name for name, text in found.items() if not text or re.match(openings, text)] == []


def test_every_file_named_in_the_documents_exists() -> None:
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    named = {
        (page.name, place)
        for page in pages
        for place in re.findall(PLACE, page.read_text(encoding="utf-8"))
        if place not in EXAMPLES and not re.search(r"/[A-Z]+\.py$", place)
    }
    assert len(named) > 40
    assert [(page, place) for page, place in sorted(named) if not (ROOT / place).exists()] == []


def test_tests_stand_where_their_modules_stand() -> None:
    """``tests/A/B/test_C_topic.py`` is about the module ``C`` of the folder ``A/B``, or listed below."""
    misplaced = [str(path) for path in files_of_tests() if not belongs(path)]
    assert misplaced == []


def files_of_tests() -> list[Path]:
    return sorted(path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py"))


def belongs(path: Path) -> bool:
    folders = [ROOT / path.parent, ROOT / "mm_cpgd" / path.parent]
    stem = path.stem.removeprefix("test_")
    modules = {file.stem for folder in folders if folder.is_dir() for file in folder.iterdir()}
    # Runs on a real vLLM, in an environment of its own.
    across = str(path) in ACROSS or path.parts[0] == "vllm"
    return across or any(stem == name or stem.startswith(f"{name}_") for name in modules)


# Tests of several modules at once: what they are about is no module.
ACROSS = {
    "test_api_page.py",
    "test_packaging.py",
    "test_structure.py",
    "eval/test_api.py",
    "eval/test_docs.py",
    "eval/test_reported_answers.py",
    "rewards/test_hostile_inputs.py",
    "rewards/test_import.py",
    "rewards/test_properties.py",
    "training/test_every_recipe.py",
    "training/test_step_page.py",
}
