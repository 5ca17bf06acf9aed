"""Budget of a judge: no request that could exceed it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from eval.scoring.budget import Budget
from mm_cpgd.errors import UserError

LIMIT = {"max_tokens": 100}


def test_a_request_is_sent_only_if_its_upper_estimate_fits() -> None:
    # 30 characters are at most 10 tokens: 10 · 1 + 100 · 2 = 210 millionths a request.
    budget = Budget(500e-6, 1.0, 2.0)
    first, second = budget.reserve("x" * 30, LIMIT), budget.reserve("x" * 30, LIMIT)
    assert first == second == pytest.approx(210e-6)
    assert budget.reserve("x" * 30, LIMIT) is None
    budget.settle(first or 0, "x" * 30, 8, 16)
    assert budget.spent == pytest.approx(40e-6)
    # 40 spent and 210 reserved: another 210 fits.
    assert budget.reserve("x" * 30, LIMIT) is not None


def test_what_a_server_does_not_report_counts_as_reserved_and_a_failure_as_its_prompt() -> None:
    budget = Budget(1.0, 1.0, 2.0)
    budget.settle(budget.reserve("x" * 30, LIMIT) or 0, "x" * 30, None, None)
    assert budget.spent == pytest.approx(210e-6)
    budget.settle(budget.reserve("x" * 30, LIMIT) or 0, "x" * 30, None, 0)
    assert budget.spent == pytest.approx(220e-6)


def test_many_threads_never_exceed_it() -> None:
    budget = Budget(1e-3, 1.0, 2.0)

    def ask(number: int) -> bool:
        reserved = budget.reserve("x" * 30, LIMIT)
        if reserved is not None:
            budget.settle(reserved, "x" * 30, 10, 100)
        return reserved is not None

    with ThreadPoolExecutor(16) as pool:
        sent = sum(pool.map(ask, range(500)))
    assert sent == 4
    assert budget.spent == pytest.approx(4 * 210e-6)


@pytest.mark.parametrize(
    ("limit", "prices", "says"),
    [
        (0.0, (1.0, 1.0), "must be above 0"),
        (float("nan"), (1.0, 1.0), "must be above 0"),
        (5.0, (None, None), "--judge-price-in"),
        (5.0, (0.0, 0.0), "--judge-price-in"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(
    limit: float, prices: tuple[float | None, float | None], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        Budget(limit, *prices)
