"""Environments of a few turns for the tests, also by their path in a config."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from PIL import Image

from data import Example, ImageRef
from mm_cpgd.environments import Message, Observation, View, prompt_messages
from mm_cpgd.environments.tools.watch import frame_at

Text = Message.of


class Looking:
    """Shows a patch of noise after each of the first turns; ``seen`` and ``patience`` are its scores.

    Args:
        seed: decides the number of turns, and what is shown.
        most: largest number of turns.
        hang: number of the turn after which it sleeps; 0: never.
        fail: number of the turn after which it raises; 0: never.
    """

    def __init__(self, seed: int, most: int = 3, hang: int = 0, fail: int = 0) -> None:
        self.random = random.Random(seed)
        self.turns = self.random.randint(1, most)
        self.hang, self.fail = hang, fail
        self.turn = 0

    def reset(self, example: Example) -> Sequence[Message]:
        return [Text("user", *example.images, "Look, then answer: ", example.question)]

    def step(self, completion: str) -> Observation:
        self.turn += 1
        if self.turn == self.hang:
            time.sleep(60)
        if self.turn == self.fail:
            raise LookupError("nothing there")
        scores = {"seen": sum(letter in "aeiou" for letter in completion) / max(len(completion), 1)}
        if self.turn >= self.turns:
            return Observation(
                done=True, scores={**scores, "patience": 0.1 * self.turn}, reason="seen enough"
            )
        reply = Text("tool", f"Look {self.turn}: ", self.picture(), completion[:5])
        return Observation((reply,), scores=scores, counts={"looks": 1})

    def picture(self) -> Image.Image | ImageRef:
        """Return what is shown next."""
        size = (56, 28 * self.random.randint(2, 4))
        return Image.new("RGB", size, f"hsl({self.random.randint(0, 359)}, 80%, 50%)")


class Watching(Looking):
    """Asks the row's question about a video, and shows frames of it again."""

    def reset(self, example: Example) -> Sequence[Message]:
        self.example = example
        return prompt_messages(example)

    def picture(self) -> ImageRef:
        """Return a frame of the video."""
        return frame_at(4 * self.random.random(), self.example, View())
