"""All families pass the checks that the table of families says they pass, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.families.build import FAMILIES, absence, not_installed
from benchmarks.families.matrix import CHECKS, PAGE, failure, page_with_table
from benchmarks.families.subject import Subject
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import load_policy

SCALED_BY_AREA = ("qwen", "glm")


@pytest.fixture(scope="module")
def subject_of(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Build a family's tiny model, once for all checks that come one after the other."""
    subjects: dict[str, Subject] = {}

    def find(name: str) -> Subject:
        if reason := absence(name):
            pytest.skip(reason)
        if name not in subjects:
            subjects.clear()
            subjects[name] = Subject(name, tiny_folder, tmp_path_factory.mktemp(name))
        return subjects[name]

    return find


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_passes_what_the_table_says_and_nothing_else(
    name: str, check: str, subject_of: Callable[[str], Subject]
) -> None:
    if reason := not_installed(CHECKS[check].needs):
        pytest.skip(reason)
    assert failure(subject_of(name), check) is None


def test_the_page_of_families_has_the_table_of_the_matrix() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with_table(page), "run python -m benchmarks.families"


@pytest.mark.parametrize("name", FAMILIES)
def test_pixel_limits_are_honoured_or_refused(name: str, subject_of: Callable[[str], Subject]) -> None:
    subject = subject_of(name)
    config = PolicyConfig(model=str(subject.folder), max_pixels=96 * 96)
    if not name.startswith(SCALED_BY_AREA):
        with pytest.raises(UserError, match="leave them out"):
            load_policy(config)
        return
    policy = load_policy(config)
    patches = policy.encoder.encode(subject.examples[0]).vision["pixel_values"].shape[0]
    area = patches * policy.processor.image_processor.patch_size**2
    assert 96 * 96 / 2 < area <= 96 * 96
