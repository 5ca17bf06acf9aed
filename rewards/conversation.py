"""Text of a completion that is a conversation: the last turn as a string, and the turns before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class TurnText(NamedTuple):
    """One turn of the policy, and the text that it read after it (empty after the last turn)."""

    text: str
    observed: str


class ConversationText(str):
    """The last turn of a conversation, for rules that score an answer; ``turns`` for those that want all.

    Attributes:
        turns: all turns in order, the last one included.
    """

    turns: tuple[TurnText, ...] = ()

    @classmethod
    def of(cls, turns: Iterable[tuple[str, str]]) -> ConversationText:
        """Return the conversation of these turns, each with the text that was read after it."""
        known = tuple(TurnText(*turn) for turn in turns)
        made = cls(known[-1].text if known else "")
        made.turns = known
        return made


def turns_of(completion: str) -> tuple[TurnText, ...]:
    """Return the turns of a completion; of one that is no conversation, itself."""
    return getattr(completion, "turns", ()) or (TurnText(completion, ""),)
