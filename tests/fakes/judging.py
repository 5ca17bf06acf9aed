"""Judge with given replies."""

from __future__ import annotations


class Replies:
    """Replies in order, and the prompts they answered."""

    def __init__(self, *replies: str) -> None:
        self.left, self.prompts = list(replies), []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.left.pop(0)
