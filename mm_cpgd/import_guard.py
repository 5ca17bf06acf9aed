"""Import guard for the top-level packages ``rewards``, ``data`` and ``eval``.

Users keep a folder ``data/`` and a file ``rewards.py`` in their working directory, and Python looks there
first. Importing ``mm_cpgd`` therefore puts a finder in front of all others that resolves exactly these three
names beside ``mm_cpgd/``. Nothing else is changed: a user's ``rewards.py`` can still be named by its path.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("rewards", "data", "eval")
ROOT = Path(__file__).resolve().parent.parent
# Former names of moved modules that the documentation told users to import.
MOVED = {
    "mm_cpgd.algorithms.described": "from mm_cpgd.algorithms import described",
    "eval.prompts": "from eval.benchmark import with_images",
}
# A word in the docstring of each package's __init__.py, the file that another distribution would overwrite.
_MARK = "mm-cpgd"


class PackageConflictError(ImportError):
    """Another module or distribution replaces or hides one of this project's packages."""


class SiblingFinder:
    """Meta path finder that resolves ``NAMES`` in ``ROOT`` and nowhere else."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of ``NAMES``, None for any other name.

        Raises:
            ModuleNotFoundError: the module has moved; the message has the new import.
            PackageConflictError: another distribution has overwritten the package, or it is not installed.
        """
        if name in MOVED:
            raise ModuleNotFoundError(f"{name} has moved; write: {MOVED[name]}", name=name)
        if path is not None or name not in NAMES:
            return None
        _check_ours(name)
        return PathFinder.find_spec(name, [str(ROOT)])


def install() -> None:
    """Put the finder in front of all others, once.

    Raises:
        PackageConflictError: one of the names was imported from elsewhere before.
    """
    for name in NAMES:
        _check_loaded(name)
    if not any(isinstance(finder, SiblingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, SiblingFinder())


def _check_loaded(name: str) -> None:
    """Refuse a module of that name that is not the package beside ``mm_cpgd/``."""
    module = sys.modules.get(name)
    if module is None:
        return
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    found = [Path(place) for place in places if place]
    if found and not any(_is_ours(place, name) for place in found):
        raise PackageConflictError(
            f"{found[0]} was imported as {name!r} and hides mm-cpgd's package of that name in {ROOT / name}; "
            f"import mm_cpgd before it, or rename {found[0].name}"
        )


def _is_ours(place: Path, name: str) -> bool:
    return place.resolve() in (ROOT / name, ROOT / name / "__init__.py")


def _check_ours(name: str) -> None:
    """Refuse a package in ``ROOT`` whose ``__init__.py`` another distribution has written or removed."""
    file = ROOT / name / "__init__.py"
    if not file.is_file():
        raise PackageConflictError(
            f"{file} is missing; install mm-cpgd again: pip install --force-reinstall mm-cpgd"
        )
    if _MARK not in file.read_text(encoding="utf-8"):
        raise PackageConflictError(
            f"{file} belongs to {_other_owner(name)}, which installs a package of the same name as mm-cpgd; "
            f"uninstall that one, then: pip install --force-reinstall --no-deps mm-cpgd"
        )


def _other_owner(name: str) -> str:
    """Return the distribution that claims the top-level name beside mm-cpgd."""
    from importlib.metadata import packages_distributions

    others = [owner for owner in packages_distributions().get(name, []) if owner != "mm-cpgd"]
    return " and ".join(map(repr, others)) or "another distribution"
