"""Which rollouts the report shows: early, middle and late in the run, right and wrong."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mm_cpgd.tracking import PromptRollout, ScoredCompletion, read_rollouts, rollout_files

STAGES = ("early", "middle", "late")
READ_FILES, READ_PROMPTS = 12, 4
"""Of each third of the run, and of each of these files."""
LARGEST_IMAGE = 2_000_000
"""Bytes; a larger file is no thumbnail of ours, and is not inlined."""
_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class ShownRollout:
    """A rollout in the report.

    Attributes:
        right: completions with the right answer.
        images: data URLs.
    """

    stage: str
    iteration: int
    prompt: PromptRollout
    right: int
    images: tuple[str, ...]


def choose_rollouts(folder: Path, per_stage: int = 4) -> list[ShownRollout]:
    """Return up to ``per_stage`` prompts of each third of the run.

    However long the run, a few iterations spread over each third are read, and the first prompts of each,
    which are those with pictures. From them come, in turn, the prompt answered best, the most divided, the
    worst, the next divided; with a picture if there is one, from different iterations if that is as good.
    """
    files = rollout_files(folder)
    shown = []
    for stage, iterations in zip(STAGES, thirds(list(files)), strict=True):
        read = {at: read_rollouts(files[at], READ_PROMPTS) for at in spread(iterations, READ_FILES)}
        found = [(at, prompt) for at, prompts in read.items() for prompt in prompts]
        for at, prompt in _choose(found, per_stage):
            images = tuple(url for name in prompt.images if (url := _data_url(folder / "images", name)))
            right = sum(is_right(completion) for completion in prompt.completions)
            shown.append(ShownRollout(stage, at, prompt, right, images))
    return shown


def thirds(items: Sequence[int]) -> list[list[int]]:
    """Cut a list into three parts of as equal length as can be, in order."""
    cuts = [round(len(items) * part / 3) for part in range(4)]
    return [list(items[start:end]) for start, end in pairwise(cuts)]


def spread(items: Sequence[int], most: int) -> list[int]:
    """Return up to ``most`` items at even distances, the first and the last included."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def is_right(completion: ScoredCompletion) -> bool:
    """Whether the answer is right: by the rule ``accuracy``, or else by the first rule there is."""
    verdicts = completion.components
    verdict = verdicts.get("accuracy") or next(iter(verdicts.values()), None)
    return verdict is not None and verdict.status == "correct"


def _choose(found: list[tuple[int, PromptRollout]], count: int) -> list[tuple[int, PromptRollout]]:
    chosen: list[tuple[int, PromptRollout]] = []
    for wanted in (1.0, 0.5, 0.0, 0.5) * -(-count // 4):
        if len(chosen) == count or not found:
            break
        seen = {at for at, _ in chosen}
        best = min(found, key=lambda item: (not item[1].images, _distance(item[1], wanted), item[0] in seen))
        found.remove(best)
        chosen.append(best)
    return sorted(chosen, key=lambda item: item[0])


def _distance(prompt: PromptRollout, wanted: float) -> float:
    completions = prompt.completions
    right = sum(is_right(completion) for completion in completions) / max(1, len(completions))
    # In quarters, so that between prompts that are about as good the iteration decides.
    return round(abs(right - wanted) * 4)


def _data_url(folder: Path, name: str) -> str | None:
    """Return an image file of the folder as a data URL; None if it is absent or no picture of ours.

    The name comes from a file that another may have written: only its last part counts.
    """
    file = folder / Path(name).name
    kind = _TYPES.get(file.suffix)
    if kind is None or not file.is_file() or file.is_symlink() or file.stat().st_size > LARGEST_IMAGE:
        return None
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
