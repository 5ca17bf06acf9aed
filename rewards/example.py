"""Example as rules see it, without images; and the conversion of other trainers' columns into its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rewards.inputs import as_choices, as_gold
from rewards.verdict import RuleError


class ExampleLike(Protocol):
    """The attributes of an example that a rule may read; ``data.Example`` has them."""

    @property
    def answer(self) -> str:
        """The gold answer."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The options' texts, empty for a free-form question."""


@dataclass(frozen=True)
class RewardExample:
    """The fields of ``data.Example`` that rules read, for use without ``data``.

    Attributes:
        answer: the gold answer.
        choices: the options' texts, empty for a free-form question.
        id: identifies the example in messages.
        question: empty if unknown.
        meta: the other columns of the row.
    """

    answer: str
    choices: tuple[str, ...] = ()
    id: str = ""
    question: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


def gold_text(value: Any, what: str) -> str:
    """Return a gold answer as text; numbers are converted. Raises ``RuleError`` for any other type."""
    try:
        return as_gold(value, what)
    except TypeError as error:
        raise RuleError(f"{error}; a gold answer must be a text or a number") from None


def option_texts(value: Any, what: str) -> tuple[str, ...]:
    """Return options as texts, an empty tuple for None. Raises ``RuleError`` unless they are a list."""
    try:
        return as_choices(value, what)
    except TypeError as error:
        raise RuleError(str(error)) from None
