"""Generated images with verifiable questions: the embedded default data.

``generate`` makes training and evaluation rows. ``cold_start`` makes rows for supervised fine-tuning: some
describe the image, some contain a careful solution, some a guess, so that the policy learns to read images
and knows several ways to answer, between which reinforcement learning can choose.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from PIL import Image

from data.example import DataError, Example, ImageRef
from data.generated import chart, clock, detail, lengths, motion, shapes, table
from data.generated.scene import SIDE, Question, format_response
from data.videos.pictures import PictureSequence
from data.videos.timeline import VideoRef


class Kind(NamedTuple):
    """Kind of task: functions that make a scene, draw it, ask a question about it and describe it.

    ``side`` is that of the square image, in pixels. The kind of a video draws a frame by its number, and
    ``span`` says when what is asked for happens.
    """

    make: Callable[[random.Random], Any]
    draw: Callable[..., Image.Image]
    ask: Callable[[Any, random.Random], Question]
    describe: Callable[[Any], str]
    side: int = SIDE
    span: Callable[[Any], str] | None = None


KINDS: dict[str, Kind] = {
    name: Kind(module.make, module.draw, module.ask, module.describe)
    for name, module in (
        ("shapes", shapes),
        ("chart", chart),
        ("clock", clock),
        ("table", table),
        ("lengths", lengths),
    )
}
# The kinds that "all" stands for: the whole image shows what is asked.
ALL = tuple(KINDS)
KINDS["detail"] = Kind(detail.make, detail.draw, detail.ask, detail.describe, detail.LARGE)
# Not among ``all``, whose rows and their order stay those that the embedded policy was built with.
VIDEOS: dict[str, Kind] = {
    "motion": Kind(motion.make, motion.draw_frame, motion.ask, motion.describe, span=motion.span),
}
_EVERY = KINDS | VIDEOS
_DESCRIBE = ("Describe the picture.", "Describe the video.")
GUESS_STEPS = "One look is enough."


@dataclass(frozen=True)
class Drawn:
    """Loader that draws a scene afresh on every call; the image has ``side`` pixels a side."""

    draw: Callable[[Any], Image.Image]
    scene: Any
    side: int

    def __call__(self) -> Image.Image:
        """Draw the image."""
        return self.draw(self.scene)

    def size(self) -> tuple[int, int]:
        """Return (width, height) without drawing."""
        return self.side, self.side


def generate(kinds: tuple[str, ...], count: int, seed: int = 0, offset: int = 0) -> list[Example]:
    """Return ``count`` examples, alternating between the kinds.

    Args:
        kinds: names from ``KINDS`` or ``VIDEOS``; empty or ``("all",)`` for those in ``ALL``.
        count: number of rows.
        seed: rows of different seeds are drawn independently.
        offset: index of the first row: rows 0–99 and 100–199 of one seed never share randomness.

    Raises:
        DataError: an unknown kind.
    """
    return [_example(kind, seed, index)[0] for kind, index in _alternate(kinds, count, offset)]


def cold_start(
    kinds: tuple[str, ...], count: int, seed: int = 0, offset: int = 0, *, describe: float, careful: float
) -> list[Example]:
    """Return ``count`` rows for fine-tuning: shares ``describe`` and ``careful``, the rest guesses."""
    return [
        _cold_start_example(kind, seed, index, describe=describe, careful=careful)
        for kind, index in _alternate(kinds, count, offset)
    ]


def _alternate(kinds: tuple[str, ...], count: int, offset: int) -> list[tuple[str, int]]:
    names = ALL if kinds in ((), ("all",)) else kinds
    unknown = [name for name in names if name not in _EVERY]
    if unknown:
        raise DataError(f"unknown generated task {unknown[0]!r}; available: all, {', '.join(_EVERY)}")
    return [(names[index % len(names)], index) for index in range(offset, offset + count)]


def _example(kind: str, seed: int, index: int) -> tuple[Example, Question, Any, random.Random]:
    # random.Random hashes all of a string seed, so neighbouring rows are independent.
    rng = random.Random(f"{kind}/{seed}/{index}")
    scene = _EVERY[kind].make(rng)
    question = _EVERY[kind].ask(scene, rng)
    name = f"{kind}-{seed}-{index}"
    example = Example(
        id=name,
        question=question.text,
        answer=question.answer,
        solution=question.solution,
        source=f"generated:{kind}",
        **_shown(kind, name, scene, question),
    )
    return example, question, scene, rng


def _shown(kind: str, name: str, scene: Any, question: Question) -> dict[str, Any]:
    """Return the fields of the example that hold its image, or its video and when it happens."""
    own, origin, meta = _EVERY[kind], f"drawn: {name}", {"kind": kind, **question.meta}
    if own.span is None:
        return {"images": (ImageRef(origin, Drawn(own.draw, scene, own.side)),), "meta": meta}
    frames = (
        ImageRef(f"{origin}, frame {number}", partial(own.draw, scene, number))
        for number in range(motion.SECONDS * motion.FPS)
    )
    video = VideoRef(origin, PictureSequence(origin, tuple(frames), motion.FPS))
    span = own.span(scene)
    task = "grounding" if question.answer == span else "qa"
    return {"videos": (video,), "meta": meta | {"task": task, "span": span}}


def _cold_start_example(kind: str, seed: int, index: int, *, describe: float, careful: float) -> Example:
    example, question, scene, rng = _example(kind, seed, index)
    meta = dict(example.meta)
    style = rng.random()
    if style < describe:
        text, solution = _DESCRIBE[bool(example.videos)], _EVERY[kind].describe(scene)
    elif style < describe + careful:
        text, solution = question.text, question.solution
        if question.turns:
            meta["turns"] = list(question.turns)
    else:
        text, solution = question.text, format_response(GUESS_STEPS, rng.choice(list(question.guesses)))
    return Example(
        id=example.id,
        question=text,
        answer=example.answer,
        images=example.images,
        videos=example.videos,
        solution=solution,
        source=example.source.replace("generated:", "cold-start:"),
        meta=meta,
    )
