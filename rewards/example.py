"""Example as rules see it, without images; and the conversion of other trainers' columns into its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = type(value).__name__
        raise RuleError(f"{what} is {str(value)[:60]!r} ({kind}); a gold answer must be a text or a number")
    return str(value)


def option_texts(value: Any, what: str) -> tuple[str, ...]:
    """Return options as texts, an empty tuple for None. Raises ``RuleError`` unless they are a list."""
    if value is None:
        return ()
    if hasattr(value, "tolist"):  # parquet readers return lists as arrays
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RuleError(
            f"{what} is {str(value)[:60]!r}; options must be a list of texts, such as ['12 cm', '15 cm']"
        )
    return tuple(str(option) for option in value)
