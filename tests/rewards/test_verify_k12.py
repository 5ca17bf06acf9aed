"""Verdicts on 500 real gold answers (K12)."""

from __future__ import annotations

import json
import random
import statistics
import time

import pytest

from rewards import Status, Verdict, verify
from tests.paths import DATASETS

_FILE = DATASETS / "k12" / "k12.json"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not _FILE.exists(), reason=f"the real data is missing: {_FILE}"),
]


@pytest.fixture(scope="module")
def golds() -> list[str]:
    return [row["answer"] for row in json.loads(_FILE.read_text(encoding="utf-8"))]


def _against(answer: str, gold: str) -> Verdict:
    return verify(f"\\boxed{{{answer}}}", gold)


def test_a_gold_is_accepted_as_itself_or_cannot_be_scored(golds: list[str]) -> None:
    statuses = [_against(gold, gold).status for gold in golds]
    assert set(statuses) == {Status.CORRECT, Status.UNPARSABLE_GOLD}
    assert statuses.count(Status.CORRECT) >= 488


def test_a_gold_is_hardly_ever_accepted_as_another(golds: list[str]) -> None:
    draw = random.Random(0)
    pairs = [draw.sample(golds, 2) for _ in range(3_000)]
    accepted = [pair for pair in pairs if pair[0] != pair[1] and _against(*pair).status is Status.CORRECT]
    short = [pair for pair in accepted if any(len(gold) > 25 for gold in pair)]
    assert len(accepted) <= 0.01 * len(pairs)
    assert not short, short


def test_verdicts_on_real_golds_are_cheap(golds: list[str]) -> None:
    times = []
    for gold in golds:
        started = time.perf_counter()
        _against(gold, gold)
        times.append(time.perf_counter() - started)
    assert statistics.median(times) < 0.003
