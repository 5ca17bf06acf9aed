"""Wording of the judges' prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import judges
from eval.judges.wording import MAX_CHARS, filled, wording

NAMES = [path.stem for path in (Path(judges.__file__ or "").parent / "prompts").glob("*.txt")]


def test_every_text_has_its_source_named_in_the_notice() -> None:
    notice = wording("NOTICE")
    assert [name for name in NAMES if name != "NOTICE" and f"{name}.txt" not in notice] == []
    assert "Permission is hereby granted, free of charge" in notice


@pytest.mark.parametrize("name", [name for name in NAMES if name != "NOTICE"])
def test_every_place_is_filled(name: str) -> None:
    texts = {"question": "q-text", "gold": "g-text", "answer": "a-text", "response": "r-text"}
    prompt = filled(name, **texts)
    assert "{question}" not in prompt
    assert "{response}" not in prompt
    assert any(text in prompt for text in texts.values())


def test_braces_and_places_within_a_text_are_left_alone() -> None:
    prompt = filled("mm_eureka_whole", question=r"\frac{1}{2} {gold}", gold="4", response="{0} {answer}")
    assert r"\frac{1}{2} {gold}" in prompt
    assert "{0} {answer}" in prompt


def test_of_a_long_text_the_end_is_kept() -> None:
    prompt = filled("mathverse_extraction", response="x" * MAX_CHARS + "the end")
    assert "the end'" in prompt
    assert prompt.count("x" * (MAX_CHARS - 7)) == 1
    assert "x" * (MAX_CHARS - 6) not in prompt
