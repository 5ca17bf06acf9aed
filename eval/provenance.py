"""What a result is stored with, so that it can be repeated: the data as read, the files, the versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from data import Example

# What can change a score; what generates answers is added by those who generate.
SCORING_PACKAGES = ("mm-cpgd", "sympy", "rapidfuzz")


def data_fingerprint(examples: Iterable[Example]) -> str:
    """Return a hash of ids, questions, answers and choices as loaded; the order of rows does not matter."""
    lines = sorted(json.dumps([one.id, one.question, one.answer, one.choices]) for one in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def file_fingerprint(path: str | Path) -> str:
    """Return a hash of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).expanduser().open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def package_versions(packages: Sequence[str] = SCORING_PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed; imports none of them."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
