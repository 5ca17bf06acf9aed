"""Verdict of a reward rule on one completion, with its evidence; and the error type of this package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """Outcome of a rule on one completion."""

    CORRECT = "correct"
    WRONG = "wrong"
    PARTIAL = "partial"
    NO_ANSWER = "no_answer"
    UNPARSABLE_ANSWER = "unparsable_answer"
    UNPARSABLE_GOLD = "unparsable_gold"
    TIMEOUT = "timeout"
    NOT_JUDGED = "not_judged"
    # In place of a response, in an evaluation.
    NOT_ANSWERED = "not_answered"
    EMPTY = "empty"
    REFUSED = "refused"
    FILTERED = "filtered"
    TOOL_CALL = "tool_call"
    ERROR = "error"


@dataclass(frozen=True)
class Verdict:
    """A score with its status and reason.

    Attributes:
        score: None if the completion cannot be scored; it is then excluded from averages and advantages, and
            counted.
        status: the outcome.
        extracted: the extracted answer, None if there is none.
        reason: one line of explanation.
    """

    score: float | None
    status: Status
    extracted: str | None = None
    reason: str = ""


class RuleError(ValueError):
    """A reward rule is unknown, malformed or misconfigured; the message says how to fix it."""
