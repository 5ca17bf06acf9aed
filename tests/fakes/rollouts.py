"""Rollouts of an invented run: groups of completions with verdicts, and their images."""

from __future__ import annotations

from typing import Any

from PIL import Image

from data.example import ImageRef
from mm_cpgd.tracking import PromptRollout, RolloutLog, ScoredCompletion, ScoredComponent

RIGHT = ScoredComponent(1.0, "correct", "4", "4 equals 4")
WRONG = ScoredComponent(0.0, "wrong", "5", "5 differs from 4")


def write_rollouts(log: RolloutLog, *rollouts: Any, force: bool = False) -> None:
    """Write rollouts and wait until they are on disk."""
    log.write(*rollouts, force=force)
    log.flush()


def red_image() -> ImageRef:
    return ImageRef("drawn", lambda: Image.new("RGB", (8, 8), "red"))


def group(right: int, size: int = 4, text: str = "<answer>4</answer>", name: str = "q") -> PromptRollout:
    completions = tuple(
        ScoredCompletion(text, 9, i > 0, float(i < right), 0.5, {"accuracy": RIGHT if i < right else WRONG})
        for i in range(size)
    )
    return PromptRollout(name, "How many?", "4", completions)
