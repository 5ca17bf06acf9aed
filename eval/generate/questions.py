"""Questions as a model is asked them: the wording of the prompt, and worked examples before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from data import DataError, Example, ImageRef, VideoRef
from data.example import MARKER, VIDEO_MARKER, Place, split_at_media
from eval.benchmark import Benchmark, lettered, with_images
from eval.generate.generate import Question
from mm_cpgd.errors import UserError

PUBLISHED, OURS = "published", "ours"
# For benchmarks without a wording of this project.
TEMPLATE = "{question}\n\nReason step by step, then give the final answer alone in \\boxed{}."
_QUESTION, _OPTIONS, _PUBLISHED = "{question}", "{options}", "{published}"
_FIELD = re.compile(r"\{(?:question|options|published)\}")
_LARGEST = 1 << 16


def read_template(prompt: str) -> str:
    """Return ``published``, ``ours``, or the text of a template, which may be in a file.

    Args:
        prompt: one of these names, a template with ``{question}`` or ``{published}``, or the path of a file
            that contains one.

    Raises:
        UserError: it is none of these.
    """
    if prompt in (PUBLISHED, OURS) or _has_question(prompt):
        return prompt
    try:
        text = Path(prompt).expanduser().read_text(encoding="utf-8")[:_LARGEST]
    except (OSError, ValueError) as error:
        raise UserError(
            f"--prompt {prompt!r} is neither {PUBLISHED} nor {OURS}, has no {_QUESTION}, and is no text file "
            f"({getattr(error, 'strerror', None) or error})"
        ) from error
    if not _has_question(text):
        raise UserError(f"--prompt {prompt}: the file has no {_QUESTION}; write it where the question goes")
    return text.strip("\n")


def _has_question(text: str) -> bool:
    return _QUESTION in text or _PUBLISHED in text


def wording_of(benchmark: Benchmark, examples: Iterable[Example], prompt: str) -> str:
    """Return whose wording the prompts are: ``published``, ``ours``, both of them, or ``template``.

    Without a published wording that this project may take over, the default is ours.
    """
    if prompt not in (PUBLISHED, OURS):
        return "template"
    found = {PUBLISHED if prompt == PUBLISHED and _published(benchmark, one) else OURS for one in examples}
    return " and ".join(sorted(found, reverse=True))


def _published(benchmark: Benchmark, example: Example) -> str | None:
    if benchmark.prompt_is_published:
        return benchmark.prompt(example)
    return benchmark.published(example) if benchmark.published is not None else None


def prompt_of(benchmark: Benchmark, example: Example, prompt: str = PUBLISHED) -> str:
    """Return the prompt of one question, with ``<image>`` at the place of each image.

    Args:
        benchmark: the question's benchmark.
        example: the question.
        prompt: result of ``read_template``.
    """
    published = _published(benchmark, example) or benchmark.prompt(example)
    if prompt == PUBLISHED:
        return published
    if prompt == OURS and not benchmark.prompt_is_published:
        return benchmark.prompt(example)
    return with_images(_filled(TEMPLATE if prompt == OURS else prompt, example, published), example)


def _filled(template: str, example: Example, published: str) -> str:
    if example.choices and _OPTIONS not in template:
        template = template.replace(_QUESTION, f"{_QUESTION}\n{_OPTIONS}")
    options = lettered(example.choices)
    if options and all(text in example.question for text in example.choices):
        options = ""
    values = {_QUESTION: example.question.strip(), _OPTIONS: options, _PUBLISHED: published}
    # In one pass, so that placeholders inside a question are not replaced.
    return _FIELD.sub(lambda mark: values[mark[0]], template).strip()


@dataclass(frozen=True)
class Shots:
    """Worked examples before each question.

    Attributes:
        examples: more than ``count``, so that a question's own can be left out.
        count: examples before each question.
    """

    examples: Sequence[Example] = ()
    count: int = 0

    def before(self, example: Example) -> list[Example]:
        """Return the examples before a question: the first ones that are not the question itself.

        Raises:
            DataError: too few are left.
        """
        text = _plain(example.question)
        # The same words about another picture are another question, unless the answer is the same, too.
        others = (
            one
            for one in self.examples
            if one.id != example.id and (_plain(one.question), one.answer) != (text, example.answer)
        )
        found = list(islice(others, self.count))
        if len(found) < self.count:
            raise DataError(
                f"--shots {self.count}: only {len(found)} examples are not the question {example.id} "
                "itself; give more of them in --shots-data, or fewer shots"
            )
        return found

    def without_images(self) -> Shots:
        """Return the examples without their images."""
        return replace(self, examples=[without_images(one) for one in self.examples])


NO_SHOTS = Shots()


def without_images(example: Example) -> Example:
    """Return a row without its images and videos, and without their markers in its text."""
    question = _unmarked(example.question).strip()
    choices = tuple(_unmarked(choice).strip() for choice in example.choices)
    return replace(example, question=question, choices=choices, images=(), videos=())


def _unmarked(text: str) -> str:
    return VIDEO_MARKER.sub("", MARKER.sub("", text))


def _plain(text: str) -> str:
    return "".join(_unmarked(text).split()).lower()


def questions_of(
    benchmark: Benchmark,
    examples: Iterable[Example],
    system_prompt: str | None,
    *,
    prompt: str = PUBLISHED,
    shots: Shots = NO_SHOTS,
) -> list[Question]:
    """Return the prompts of the benchmark's examples; choices are included in the text.

    Args:
        benchmark: the examples' benchmark.
        examples: rows.
        system_prompt: of every question.
        prompt: result of ``read_template``.
        shots: worked examples before each question.

    Raises:
        DataError: too few worked examples.
    """
    asked = []
    for example in examples:
        text = prompt_of(benchmark, example, prompt)
        question = Question(example.id, text, example.images, system_prompt, videos=example.videos)
        before = [_worked(prompt_of(benchmark, one, prompt), one) for one in shots.before(example)]
        asked.append(_after(before, question) if before else question)
    return asked


def _worked(prompt: str, example: Example) -> Question:
    """Return an example with its answer: the worked solution, if there is one, and the gold answer."""
    solution = f"{example.solution.strip()}\n" if example.solution and example.solution.strip() else ""
    text = f"{prompt}\n\n{solution}The answer is {example.answer}."
    return Question(example.id, text, example.images, videos=example.videos)


def _after(before: Sequence[Question], question: Question) -> Question:
    """Return the question after its examples, as one turn; images and videos are in the order of the text."""
    texts: list[str] = []
    images: list[ImageRef] = []
    videos: list[VideoRef] = []
    for number, one in enumerate([*before, question], 1):
        pieces = split_at_media(one.text, len(one.images), len(one.videos))
        places = [piece for piece in pieces if isinstance(piece, Place)]
        images += [one.images[place.index] for place in places if place.kind == "image"]
        videos += [one.videos[place.index] for place in places if place.kind == "video"]
        text = "".join(piece if isinstance(piece, str) else f"<{piece.kind}>" for piece in pieces)
        last = number > len(before)
        texts.append(f"{'Question' if last else f'Example {number}'}:\n{text}")
    return replace(question, text="\n\n".join(texts), images=tuple(images), videos=tuple(videos))
