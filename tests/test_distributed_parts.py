"""Work in several parts of which one fails, while the other processes are met between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mm_cpgd.distributed import Parts
from mm_cpgd.errors import EngineFailed, UserError
from mm_cpgd.interrupt import Interrupted
from rewards import RuleError


def failing(error: Exception) -> Callable[[], Any]:
    def work() -> Any:
        raise error

    return work


def test_parts_without_an_error_give_their_results() -> None:
    parts = Parts()
    assert [parts.run(lambda: 1, 0), parts.run(lambda: 2, 0)] == [1, 2]
    parts.end()


@pytest.mark.parametrize("kind", [EngineFailed, UserError, RuleError, Interrupted])
def test_the_first_error_is_raised_when_all_parts_are_over(kind: type[Exception]) -> None:
    parts = Parts()
    assert parts.run(failing(kind("first")), 7) == 7
    assert parts.run(failing(kind("second")), 8) == 8
    assert parts.run(lambda: 9, 0) == 9
    with pytest.raises(kind, match="first"):
        parts.end()


def test_a_bug_is_raised_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        Parts().run(failing(ZeroDivisionError()), 0)
