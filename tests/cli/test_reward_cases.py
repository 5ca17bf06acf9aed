"""Latency of the cases of ``mm-cpgd rewards test``."""

from __future__ import annotations

import pytest

from mm_cpgd.cli.reward_cases import Case, CaseResult, latency
from rewards import Status, Verdict
from rewards.example import RewardExample


@pytest.mark.parametrize(("rank", "seconds"), [(50, 2.0), (75, 3.0), (90, 4.0), (100, 4.0), (1, 1.0)])
def test_latency_is_the_nearest_rank(rank: int, seconds: float) -> None:
    case = Case("", "", RewardExample(""), None)
    results = [CaseResult(case, Verdict(None, Status.ERROR), taken) for taken in (4.0, 1.0, 3.0, 2.0)]
    assert latency(results, rank) == seconds
