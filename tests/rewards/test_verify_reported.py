"""Verdicts that were wrong once: completions with their gold answers, by kind (cases/verdicts.jsonl)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewards import verify

_LINES = (Path(__file__).parent / "cases" / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [json.loads(line) for line in _LINES]


@pytest.mark.parametrize("case", CASES, ids=[f"{i}: {case['kind'][:40]}" for i, case in enumerate(CASES)])
def test_a_verdict_that_was_wrong_once_is_right(case: dict[str, Any]) -> None:
    verdict = verify(case["completion"], case["gold"], choices=case.get("choices") or ())
    assert verdict.score == case["expected"], verdict
