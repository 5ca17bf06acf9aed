"""Checks of the guard's settings before a run."""

from __future__ import annotations

import pytest

from mm_cpgd.config.schema import GuardConfig
from mm_cpgd.errors import UserError
from mm_cpgd.training.setup import check_guard
from tests.fakes.guard import DRIFT, objective


def test_an_unknown_signal_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown signal 'drfit'.*drift_high"):
        check_guard(GuardConfig(ignore=["drfit"]), objective())


def test_alpha_cannot_be_raised_without_a_policy_drift() -> None:
    check_guard(GuardConfig(alpha_factor=2), objective(DRIFT))
    with pytest.raises(UserError, match="no policy_drift"):
        check_guard(GuardConfig(alpha_factor=2), objective())
