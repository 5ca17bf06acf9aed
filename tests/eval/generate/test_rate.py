"""Rate limit, and the waits that servers ask for."""

from __future__ import annotations

import pytest

from eval.generate.rate import RateLimiter, retry_after_seconds
from tests.fakes.clock import Clock


def test_a_rate_limit_spaces_its_callers_evenly() -> None:
    clock, passed = Clock(), []
    pace = RateLimiter(30, clock=clock, sleep=clock.sleep)
    for _ in range(3):
        pace.wait()
        passed.append(clock.now)
    assert passed == [100, 102, 104]


def test_an_idle_rate_limit_accumulates_no_slots() -> None:
    clock = Clock()
    pace = RateLimiter(60, clock=clock, sleep=clock.sleep)
    pace.wait()
    clock.now += 50
    pace.wait()
    assert clock.now == 150


def test_a_pause_applies_to_every_caller() -> None:
    clock = Clock()
    pace = RateLimiter(None, clock=clock, sleep=clock.sleep)
    pace.pause(9)
    pace.wait()
    assert clock.now == 109


def test_a_caller_can_see_how_long_it_would_wait() -> None:
    clock = Clock()
    pace = RateLimiter(None, clock=clock, sleep=clock.sleep)
    assert pace.blocked == 0
    pace.pause(9)
    clock.now += 2
    assert pace.blocked == 7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"retry-after-ms": "soon", "Retry-After": "1"}, 1),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_a_wait_is_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds
