"""``rollouts/iteration-000012.jsonl``: prompts, completions, rewards and reasons; one line per prompt."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from data.example import DataError, ImageRef
from mm_cpgd.errors import UserError
from mm_cpgd.tracking.files import json_line, write_lines, writing

THUMBNAIL = 512
"""Longest side of a stored image, in pixels."""
_NUMBER = re.compile(r"(?:iteration-)?(\d{6,})")


@dataclass(frozen=True)
class ScoredComponent:
    """One reward rule's verdict on one completion, as in ``rewards.verdict.Verdict``."""

    score: float | None
    status: str
    extracted: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class LoggedTurn:
    """One turn of a conversation, and what the environment replied to it.

    Attributes:
        text: of the turn.
        observed: text that the policy read after it; empty after the last turn.
        reason: the environment's line about it.
        scores: parts of the score that the environment gave, by name.
        images: file names under ``rollouts/images`` of what it showed; empty if none were kept.
        parts: of each shown image that is a part of an image of the prompt: the number of that one, from 0,
            and left, top, right, bottom as fractions of its sides.
        pictures: these images, until they are stored.
    """

    text: str
    observed: str = ""
    reason: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    parts: tuple[tuple[float, ...], ...] = ()
    pictures: tuple[ImageRef, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class ScoredCompletion:
    """One completion with its reward.

    Attributes:
        tokens: length, the end token included; of a conversation that of all its turns.
        finished: whether it ended with an end token; False if it was cut at the token limit.
        total: weighted sum of the components, None when it could not be scored.
        advantage: None when it was left out of the update.
        components: verdict by the rule's name.
        turns: of a conversation with an environment; ``text`` is then the last turn's.
        cut: limit that ended the conversation, empty if none did.
    """

    text: str
    tokens: int
    finished: bool
    total: float | None
    advantage: float | None = None
    components: Mapping[str, ScoredComponent] = field(default_factory=dict)
    turns: tuple[LoggedTurn, ...] = ()
    cut: str = ""


@dataclass(frozen=True)
class PromptRollout:
    """One prompt with its group of completions.

    Attributes:
        images: file names under ``rollouts/images``; empty if none were kept.
    """

    id: str
    question: str
    answer: str
    completions: tuple[ScoredCompletion, ...]
    images: tuple[str, ...] = ()


class RolloutLog:
    """Log of the rollouts of every ``every``-th iteration (the first included), with a few images.

    It writes in the background, so that no step waits for the slow thumbnails; ``flush`` waits.

    Args:
        folder: the run's ``rollouts`` folder.
        every: iterations from one file to the next.
        images: number of prompts per iteration whose images are kept, as thumbnails.
    """

    def __init__(self, folder: Path, every: int = 1, images: int = 1) -> None:
        self.folder = folder
        self.every = every
        self.images = images
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._pending: Future[None] | None = None

    def path(self, iteration: int) -> Path:
        """Return the file of an iteration's rollouts, which need not exist."""
        return self.folder / f"iteration-{iteration:06d}.jsonl"

    def is_due(self, iteration: int) -> bool:
        """Return whether ``write`` will write this iteration (counted from 1)."""
        return (iteration - 1) % self.every == 0

    def write(
        self,
        iteration: int,
        prompts: Sequence[PromptRollout],
        images: Sequence[Sequence[ImageRef]],
        force: bool = False,
    ) -> None:
        """Start writing an iteration's file if it is due or ``force`` is set (a failed step).

        Waits for the previous file first, so that at most one is being written.

        Args:
            iteration: counted from 1.
            prompts: the P prompts; their ``images`` are set here.
            images: what each prompt shows: its images, and a few frames of its videos.
            force: write even if the iteration is not due.

        Raises ``UserError`` if the previous file could not be written.
        """
        if force or self.is_due(iteration):
            self.flush()
            self._pending = self._writer.submit(self._write, iteration, prompts, images)

    def flush(self) -> None:
        """Wait until everything is on disk. Raises ``UserError`` if it cannot be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(
        self, iteration: int, prompts: Sequence[PromptRollout], images: Sequence[Sequence[ImageRef]]
    ) -> None:
        lines = []
        for index, (prompt, references) in enumerate(zip(prompts, images, strict=True)):
            kept = references if index < self.images else ()
            names = self._save_images(f"{iteration:06d}-{index:04d}", kept)
            completions = tuple(
                self._with_images(one, f"{iteration:06d}-{index:04d}-{place}", keep=index < self.images)
                for place, one in enumerate(prompt.completions)
            )
            lines.append(_line(replace(prompt, images=names, completions=completions)))
        write_lines(self.path(iteration), lines)

    def truncate_after(self, iteration: int) -> None:
        """Remove the files and images of later iterations, which a resumed run writes again."""
        self.flush()
        for file in (*self.folder.glob("iteration-*.jsonl"), *self.folder.glob("images/*")):
            number = _NUMBER.match(file.name)
            if number and int(number[1]) > iteration:
                file.unlink()

    def _with_images(self, completion: ScoredCompletion, name: str, *, keep: bool) -> ScoredCompletion:
        """Return the completion with the names of its turns' images in place of these."""
        turns = tuple(
            replace(
                turn,
                images=self._save_images(f"{name}-turn{number}", turn.pictures if keep else ()),
                pictures=(),
            )
            for number, turn in enumerate(completion.turns, 1)
        )
        return replace(completion, turns=turns)

    def _save_images(self, name: str, references: Sequence[ImageRef]) -> tuple[str, ...]:
        saved = (self._save_image(f"{name}-{place}", one) for place, one in enumerate(references))
        return tuple(file for file in saved if file)

    def _save_image(self, name: str, reference: ImageRef) -> str | None:
        """Store a thumbnail and return its file name; None if the image no longer opens."""
        try:
            suffix, content = _thumbnail(reference.open())
        except (DataError, OSError):
            return None
        file = self.folder / "images" / f"{name}.{suffix}"
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return file.name


def rollout_files(folder: Path) -> dict[int, Path]:
    """Return the rollout files of a ``rollouts`` folder by iteration, in order."""
    files = {int(path.stem.removeprefix("iteration-")): path for path in folder.glob("iteration-*.jsonl")}
    return dict(sorted(files.items()))


def read_rollouts(path: Path, most: int | None = None) -> list[PromptRollout]:
    """Return the prompts of a file, at most the first ``most`` (images are kept of the first ones).

    Raises ``UserError`` with the line number for a line that is no rollout.
    """
    prompts = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(islice(file, most), 1):
            try:
                prompts.append(_prompt(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not a rollout ({error!r})") from None
    return prompts


def _prompt(row: dict[str, Any]) -> PromptRollout:
    completions = tuple(_completion(completion) for completion in row.pop("completions"))
    return PromptRollout(**{**row, "completions": completions, "images": tuple(row["images"])})


def _completion(row: dict[str, Any]) -> ScoredCompletion:
    components = {rule: ScoredComponent(**component) for rule, component in row.pop("components").items()}
    turns = tuple(
        LoggedTurn(
            **{
                **turn,
                "images": tuple(turn["images"]),
                "parts": tuple(tuple(part) for part in turn.get("parts", ())),
            }
        )
        for turn in row.pop("turns", ())
    )
    return ScoredCompletion(**row, components=components, turns=turns)


def _line(prompt: PromptRollout) -> str:
    """Return the line of a prompt; completions of one turn have no keys of conversations."""
    row = asdict(prompt)
    for completion in row["completions"]:
        turns, cut = completion.pop("turns"), completion.pop("cut")
        for turn in turns:
            del turn["pictures"]
        if turns:
            completion |= {"turns": turns, "cut": cut}
    return json_line(row)


def _thumbnail(image: Image.Image) -> tuple[str, bytes]:
    """Return suffix and content of the smaller of PNG (drawings) and JPEG (photographs)."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    contents = {}
    for suffix, kind, options in (("png", "PNG", {}), ("jpg", "JPEG", {"quality": 85})):
        buffer = io.BytesIO()
        small.save(buffer, kind, **options)
        contents[suffix] = buffer.getvalue()
    return min(contents.items(), key=lambda item: len(item[1]))
