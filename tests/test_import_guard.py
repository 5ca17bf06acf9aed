"""Refusals of the import guard: one message that names the file and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mm_cpgd import import_guard
from mm_cpgd.import_guard import PackageConflictError
from tests.paths import ROOT


def test_a_module_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("mine = 1\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import data; import mm_cpgd"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"{tmp_path / 'data.py'} was imported as 'data'" in last
    assert "import mm_cpgd before it, or rename data.py" in last


def test_a_namespace_package_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import eval; import mm_cpgd"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path / 'eval'} was imported as 'eval'" in done.stderr.strip().splitlines()[-1]


def test_our_own_packages_may_be_imported_before(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import rewards, data, eval, mm_cpgd"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_package_that_another_distribution_has_overwritten_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").write_text('"""Somebody else\'s."""\n')
    monkeypatch.setattr(import_guard, "ROOT", tmp_path)
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"data": ["mm-cpgd", "datakit"]})
    with pytest.raises(
        PackageConflictError, match=r"data/__init__\.py belongs to 'datakit', .* uninstall that one"
    ):
        import_guard.SiblingFinder().find_spec("data")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_guard, "ROOT", tmp_path)
    with pytest.raises(PackageConflictError, match=r"eval/__init__\.py is missing; install mm-cpgd again"):
        import_guard.SiblingFinder().find_spec("eval")


@pytest.mark.parametrize("name", ["torch", "rewards.math", "datasets"])
def test_other_names_are_left_to_python(name: str) -> None:
    finder = import_guard.SiblingFinder()
    assert finder.find_spec(name, ["somewhere"] if "." in name else None) is None


def test_the_finder_stands_first_and_once() -> None:
    import_guard.install()
    found = [finder for finder in sys.meta_path if isinstance(finder, import_guard.SiblingFinder)]
    assert found == sys.meta_path[:1]


def test_every_package_bears_the_mark_that_the_guard_looks_for() -> None:
    for name in import_guard.NAMES:
        import_guard._check_ours(name)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("from mm_cpgd.algorithms.described import described", "from mm_cpgd.algorithms import described"),
        ("from eval.prompts import with_images", "from eval.benchmark import with_images"),
        ("from data import Row", "from data.readers import RawRow"),
    ],
)
def test_importing_a_moved_name_reports_its_new_place(old: str, new: str) -> None:
    with pytest.raises(ImportError, match=f"has moved; write: {new}"):
        exec(old, {})
    exec(new, {})


def test_the_former_keyword_of_described_reports_its_new_name() -> None:
    from mm_cpgd.algorithms import described

    with pytest.raises(TypeError, match="the keyword stage is now called prepare"):
        described("A", stage=len)
