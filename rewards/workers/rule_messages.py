"""Completions that are scored together by one rule, and the messages that take them to its processes."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from rewards.verdict import Verdict

# The verdict on a completion, or the error that the rule failed with.
Outcome = Verdict | Exception


class Batch:
    """Completions with their examples, handed out in order to several threads, and their outcomes.

    Args:
        completions: n texts.
        examples: n of them.
        stop: whether the first failure is the end of the batch.

    Attributes:
        stopped: whether it has ended like this.
    """

    def __init__(self, completions: Sequence[str], examples: Sequence[Any], *, stop: bool) -> None:
        self.completions = completions
        self.examples = examples
        self.stopped = False
        self._stop = stop
        self._outcomes: list[Outcome | None] = [None] * len(completions)
        self._next = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.completions)

    def take(self, count: int) -> list[int]:
        """Return the next ``count`` rows, fewer at the end."""
        with self._lock:
            first = self._next
            self._next = min(len(self), first + count)
            return list(range(first, self._next))

    def note(self, row: int, outcome: Outcome) -> None:
        """Keep the outcome of a row."""
        self._outcomes[row] = outcome
        if self._stop and isinstance(outcome, Exception):
            self.stopped = True

    def fail(self, rows: Sequence[int], error: Exception) -> list[int]:
        """Keep this outcome of all these rows; nothing of them is left to be done."""
        for row in rows:
            self.note(row, error)
        return []

    def results(self) -> list[Outcome]:
        """Return all outcomes in order."""
        found = [one for one in self._outcomes if one is not None]
        assert len(found) == len(self)
        return found


def packed(batch: Batch, rows: Sequence[int], limit: float) -> tuple[list[int], bytes]:
    """Return the message that asks for these rows, and which of them are in it; others have failed.

    Each example is pickled once, by itself: one that the other process cannot read costs its own rows alone.

    Args:
        batch: receives the errors of rows that cannot be pickled.
        rows: wanted.
        limit: seconds for each.
    """
    places: dict[int, int] = {}
    examples: list[bytes] = []
    content: list[tuple[bytes, int]] = []
    sent: list[int] = []
    for row in rows:
        example = batch.examples[row]
        try:
            completion = pickle.dumps(batch.completions[row])
            if id(example) not in places:
                examples.append(_pickled(example))
                places[id(example)] = len(examples) - 1
        except Exception as error:
            batch.note(row, error)
            continue
        content.append((completion, places[id(example)]))
        sent.append(row)
    return sent, pickle.dumps((limit, examples, content))


def _pickled(example: Any) -> bytes:
    try:
        return pickle.dumps(example)
    except Exception:
        if not is_dataclass(example) or isinstance(example, type) or not hasattr(example, "images"):
            raise
        # Some images cannot be opened in another process; a rule that only reads the text does not need them.
        changed = {"images": tuple(replace(one, load=_Unavailable(one.origin)) for one in example.images)}
        if getattr(example, "videos", ()):
            videos = getattr(example, "videos")  # noqa: B009  # rules may get examples without
            changed["videos"] = tuple(replace(one, source=_Unavailable(one.origin)) for one in videos)
        return pickle.dumps(replace(example, **changed))


class _Unavailable:
    """Stands for an image or a video that only the trainer's process can open."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def __call__(self) -> Any:
        raise RuntimeError(
            f"image {self.origin} cannot be opened in the rule's process; set the reward's timeout to null, "
            "then the rule runs in the trainer's"
        )
