"""Verdict of a reward rule on one completion, with its evidence; and the error of this package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How a verdict came about."""

    CORRECT = "correct"
    WRONG = "wrong"
    PARTIAL = "partial"
    NO_ANSWER = "no_answer"
    UNPARSABLE_ANSWER = "unparsable_answer"
    UNPARSABLE_GOLD = "unparsable_gold"
    TIMEOUT = "timeout"
    NOT_JUDGED = "not_judged"
    ERROR = "error"


@dataclass(frozen=True)
class Verdict:
    """A score and why.

    Attributes:
        score: None when the row cannot be scored; it then leaves averages and advantages, and is counted.
        status: how the verdict came about.
        extracted: the answer that was read out of the completion, None when there was none.
        reason: one line that a person understands.
    """

    score: float | None
    status: Status
    extracted: str | None = None
    reason: str = ""


class RuleError(ValueError):
    """A reward rule that is unknown, malformed or misconfigured; the message says what to do."""
