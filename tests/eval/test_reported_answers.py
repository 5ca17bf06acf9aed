"""Answers that were scored otherwise than their benchmark or an attentive reader would score them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data import Example
from eval.benchmark import Response
from eval.benchmarks import find_benchmark

CASES = json.loads((Path(__file__).parent / "cases/answers.json").read_text(encoding="utf-8"))


def question(case: dict[str, Any]) -> Example:
    many = bool(case["choices"])
    meta = {
        "answer_type": "text" if many else "integer",
        "precision": 1,
        "question_type": "multi_choice" if many else "free_form",
        "subset": "OE_TO_maths_en_COMP",
        **case["meta"],
    }
    if case["bench"] == "olympiadbench":
        meta["answer_type"] = "Expression"
    return Example(case["id"], "q", case["gold"], choices=tuple(case["choices"]), meta=meta)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_reported_answer_has_its_right_score(case: dict[str, Any]) -> None:
    benchmark = find_benchmark(case["bench"])
    rule = benchmark.official if case["protocol"] == "official" else benchmark.verifier
    verdict = rule(question(case), Response(case["id"], case["response"]))
    assert verdict.score == case["expected"], verdict
