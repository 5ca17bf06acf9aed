"""Example without its images: what a rule needs when it runs outside of this project's training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.verdict import RuleError


@dataclass(frozen=True)
class RewardRow:
    """What rules read of ``data.Example``, under the same names.

    Attributes:
        answer: the gold answer.
        choices: the options' texts, empty for a free-form question.
        id: for messages.
        question: empty where it is not known.
        meta: whatever else belongs to the row.
    """

    answer: str
    choices: tuple[str, ...] = ()
    id: str = ""
    question: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


def gold_text(value: Any, what: str) -> str:
    """A gold answer as text: texts stay, numbers are written out. Raises ``RuleError`` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = type(value).__name__
        raise RuleError(f"{what} is {str(value)[:60]!r} ({kind}); a gold answer must be a text or a number")
    return str(value)


def option_texts(value: Any, what: str) -> tuple[str, ...]:
    """Options as texts; none for None. Raises ``RuleError`` for what is no list, also for one text."""
    if value is None:
        return ()
    if hasattr(value, "tolist"):  # an array, which parquet readers give for a list
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RuleError(
            f"{what} is {str(value)[:60]!r}; options must be a list of texts, as ['12 cm', '15 cm']"
        )
    return tuple(str(option) for option in value)
