r"""An environment without tools: a wrong answer gets one hint, and a second try counts half.

mm-cpgd environments try examples/environments/hints.py:Hints generated:shapes \
    --turn '<answer>0</answer>' --turn '<answer>2</answer>'
"""

from __future__ import annotations

from collections.abc import Sequence

from data import Example
from mm_cpgd.environments import Message, Observation, prompt_messages
from rewards import verify


class Hints:
    """One hint, in which the gold answer is a number between two others."""

    def __init__(self, seed: int, worth: float = 0.5) -> None:
        self.worth = worth

    def reset(self, example: Example) -> Sequence[Message]:
        """Return the question."""
        self.example = example
        self.turn = 0
        return prompt_messages(example)

    def step(self, completion: str) -> Observation:
        """End at a right answer or the second one; else give the hint."""
        self.turn += 1
        right = verify(completion, self.example.answer).score == 1
        if right or self.turn == 2:
            score = float(right) * (1.0 if self.turn == 1 else self.worth)
            return Observation(done=True, scores={"solved": score}, reason=f"{score:g} in turn {self.turn}")
        # ASCII digits only: int() also reads other digits, and a gold answer may be a word.
        is_number = self.example.answer.isascii() and self.example.answer.isdecimal()
        low = int(self.example.answer) - 1 if is_number else None
        hint = f"It is between {low} and {low + 2}." if low is not None else "That is not it; look again."
        return Observation((Message.of("user", hint),), reason="wrong, a hint is given", counts={"hints": 1})
