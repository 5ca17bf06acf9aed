"""Selection of the rollouts in the report: early, middle and late in the run, correct and wrong."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from mm_cpgd.tracking import PromptRollout, ScoredCompletion, read_rollouts, rollout_files

STAGES = ("early", "middle", "late")
READ_FILES, READ_PROMPTS = 12, 4
"""Files of each third of the run, and prompts of each of these files."""
SHOWN_TALKS = 4
"""Completions of a prompt whose images are in the report."""
LARGEST_IMAGE = 2_000_000
"""In bytes; a larger file is not one of this project's thumbnails and is not inlined."""
_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Look:
    """A part of an image that conversations of a group looked at.

    Attributes:
        left: as the others, a fraction of the image's side.
        times: number of completions that looked there.
        right: those with the right answer.
    """

    left: float
    top: float
    width: float
    height: float
    times: int
    right: int


@dataclass(frozen=True)
class ShownRollout:
    """A rollout in the report.

    Attributes:
        right: number of completions with the right answer.
        images: data URLs.
        looks: of each image, the parts that the conversations looked at.
        pictures: data URLs of what turns of conversations showed, by file name.
    """

    stage: str
    iteration: int
    prompt: PromptRollout
    right: int
    images: tuple[str, ...]
    looks: tuple[tuple[Look, ...], ...]
    pictures: dict[str, str] = field(default_factory=dict)


def choose_rollouts(folder: Path, per_stage: int = 4) -> list[ShownRollout]:
    """Return up to ``per_stage`` prompts of each third of the run.

    A few iterations spread over each third are read, however long the run, and of each the first prompts,
    which are those with images. Chosen from them are, in turn, the prompts whose share of right completions
    is nearest to 1, 0.5, 0 and 0.5; prompts with images first, different iterations among equals.
    """
    files = rollout_files(folder)
    shown = []
    for stage, iterations in zip(STAGES, thirds(list(files)), strict=True):
        read = {at: read_rollouts(files[at], READ_PROMPTS) for at in evenly_spaced(iterations, READ_FILES)}
        found = [(at, prompt) for at, prompts in read.items() for prompt in prompts]
        for at, prompt in _choose(found, per_stage):
            stored = enumerate(_data_url(folder / "images", name) for name in prompt.images)
            seen = [(url, looks_at(prompt.completions, number)) for number, url in stored if url]
            right = sum(is_right(completion) for completion in prompt.completions)
            pictures = _pictures(prompt, folder / "images")
            shown.append(
                ShownRollout(
                    stage,
                    at,
                    prompt,
                    right,
                    images=tuple(url for url, _ in seen),
                    looks=tuple(looks for _, looks in seen),
                    pictures=pictures,
                )
            )
    return shown


def thirds(items: Sequence[int]) -> list[list[int]]:
    """Split a list, in order, into three lists of nearly equal length."""
    cuts = [round(len(items) * third / 3) for third in range(4)]
    return [list(items[start:end]) for start, end in pairwise(cuts)]


def evenly_spaced(items: Sequence[int], most: int) -> list[int]:
    """Return up to ``most`` items at even distances, including the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def looks_at(completions: Sequence[ScoredCompletion], number: int) -> tuple[Look, ...]:
    """Return the parts of the prompt's image of this number, from 0, that conversations looked at, each once.

    Parts that are none, which a file that is not trusted may hold, are left out.
    """
    found: dict[tuple[float, ...], list[bool]] = {}
    for completion in completions:
        for part in dict.fromkeys(part for turn in completion.turns for part in turn.parts):
            if _is_part(part) and part[0] == number:
                found.setdefault(part[1:], []).append(is_right(completion))
    return tuple(
        Look(left, top, right - left, bottom - top, len(answers), sum(answers))
        for (left, top, right, bottom), answers in found.items()
    )


def _is_part(part: Sequence[object]) -> bool:
    numbers = [value for value in part if isinstance(value, (int, float))]
    if len(part) != 5 or len(numbers) != 5:
        return False
    _, left, top, right, bottom = numbers
    return 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def is_right(completion: ScoredCompletion) -> bool:
    """Return whether the answer is right: by the rule ``accuracy`` if present, else by the first rule."""
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
    # In quarters, so that the iteration decides between prompts that are nearly equal.
    return round(abs(right - wanted) * 4)


def _pictures(prompt: PromptRollout, folder: Path) -> dict[str, str]:
    """Return the data URLs of the images of a few conversations of the prompt."""
    turns = [turn for completion in prompt.completions[:SHOWN_TALKS] for turn in completion.turns]
    names = [name for turn in turns for name in turn.images]
    return {name: url for name in names if (url := _data_url(folder, name))}


def _data_url(folder: Path, name: str) -> str | None:
    """Return an image file of the folder as a data URL; None if it is absent or cannot be a stored thumbnail.

    The name comes from a file that is not trusted: only its last component is used.
    """
    file = folder / Path(name).name
    kind = _TYPES.get(file.suffix)
    if kind is None or not file.is_file() or file.is_symlink() or file.stat().st_size > LARGEST_IMAGE:
        return None
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
