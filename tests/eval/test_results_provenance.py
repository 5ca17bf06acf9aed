"""Provenance of results: fingerprints of data and files, versions of packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eval.results import data_fingerprint, file_fingerprint, package_versions
from tests.fakes.scoring import example


@pytest.mark.parametrize("changed", [{"id": "z"}, {"question": "?"}, {"answer": "5"}, {"choices": ("4",)}])
def test_the_fingerprint_changes_with_questions_and_gold_answers(changed: dict[str, object]) -> None:
    rows = [example("a"), example("b")]
    assert data_fingerprint([replace(rows[0], **changed), rows[1]]) != data_fingerprint(rows)


def test_the_fingerprint_does_not_change_with_the_order_of_rows() -> None:
    assert data_fingerprint([example("a"), example("b")]) == data_fingerprint([example("b"), example("a")])


def test_a_files_fingerprint_is_that_of_its_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    assert file_fingerprint(first) != file_fingerprint(second)
    second.write_bytes(b"1")
    assert file_fingerprint(first) == file_fingerprint(second)


def test_versions_are_of_what_is_installed() -> None:
    versions = package_versions(["sympy", "no-such-package-at-all"])
    assert set(versions) == {"python", "sympy"}
