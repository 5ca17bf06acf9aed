"""Generation of answers to a benchmark's questions: jobs, cache keys, failures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from data import DataError, Example, ImageRef
from data.images import EncodedImage
from eval.benchmark import Benchmark, Response
from eval.generate.cache import VERSION, Answer, AnswerCache, digest
from mm_cpgd.errors import UserError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        id: of the example.
        text: choices included; ``<image>`` marks where an image belongs, else images come first.
        images: opened late.
        system_prompt: put before it, None for what the chat template does by itself.
    """

    id: str
    text: str
    images: tuple[ImageRef, ...] = ()
    system_prompt: str | None = None


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn; temperature 0 takes the most probable token.

    Raises:
        UserError: a value out of its range.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"--max-new-tokens {self.max_new_tokens} must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature {self.temperature:g} must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p:g} must be above 0 and at most 1")

    def settings(self) -> dict[str, Any]:
        """Return what decides an answer: of greedy decoding, neither the seed nor the share of tokens."""
        if self.temperature == 0:
            return {"max_new_tokens": self.max_new_tokens, "temperature": 0}
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Job:
    """One answer to be generated.

    Attributes:
        question: what to ask.
        sample: 0 … k - 1.
        seed: of this sample, from the question and the run's seed, not from its place in the run.
        key: under which the answer is kept.
    """

    question: Question
    sample: int
    seed: int
    key: str


@dataclass(frozen=True)
class Failure:
    """Why a question could not be answered."""

    reason: str


class Generator(Protocol):
    """Answers questions."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its answers beside question and decoding, as JSON.

        ``model`` is its name, ``model_id`` tells one state of its weights from another.
        """
        ...

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Answer | Failure]]:
        """Answer all jobs, in any order, with a bounded number of them begun at any time."""
        ...


@dataclass
class Answers:
    """The answers to a benchmark's questions.

    Attributes:
        responses: in the order of questions and samples, those that failed left out.
        failures: id and sample to the reason.
        cached: how many had been generated before.
        images: SHA-256 of all images' bytes, in order.
    """

    responses: list[Response] = field(default_factory=list)
    failures: dict[tuple[str, int], str] = field(default_factory=dict)
    cached: int = 0
    images: str = ""


def questions_of(
    benchmark: Benchmark, examples: Iterable[Example], system_prompt: str | None
) -> Iterator[Question]:
    """Write the benchmark's prompts; choices are a part of them."""
    for example in examples:
        yield Question(example.id, benchmark.prompt(example), example.images, system_prompt)


def answer(
    questions: Sequence[Question],
    generator: Generator,
    decoding: Decoding,
    *,
    samples: int = 1,
    cache: AnswerCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """Answer every question ``samples`` times; what the cache holds is not generated again.

    Args:
        questions: with distinct ids.
        generator: asked for what is missing, in one stream.
        decoding: how answers are drawn.
        samples: k.
        cache: read before and written after every answer; None keeps nothing.
        progress: called with (answers so far, all answers).

    Raises:
        UserError: several samples without a temperature.
        DataError: no question at all could be asked.
    """
    check_samples(samples, decoding)
    found: dict[tuple[str, int], Answer | Failure] = {}
    answers, images = Answers(), hashlib.sha256()

    def note(question: Question, sample: int, what: Answer | Failure) -> None:
        found[question.id, sample] = what
        if progress is not None:
            progress(len(found), len(questions) * samples)

    def missing() -> Iterator[Job]:
        for question in questions:
            try:
                pictures = [image_digest(image) for image in question.images]
            except DataError as error:
                for sample in range(samples):
                    note(question, sample, Failure(str(error)))
                continue
            images.update("".join(pictures).encode())
            for job in _jobs(question, pictures, generator.identity, decoding, samples):
                known = None if cache is None else cache.get(job.key)
                if known is None:
                    yield job
                else:
                    answers.cached += 1
                    note(question, job.sample, known)

    for job, what in generator.generate(missing(), decoding):
        if cache is not None and isinstance(what, Answer):
            cache.put(job.key, what)
        note(job.question, job.sample, what)
    answers.images = images.hexdigest()
    return _in_order(questions, samples, found, answers)


def check_samples(samples: int, decoding: Decoding) -> None:
    """Raise ``UserError`` where all samples would be the same."""
    if samples < 1:
        raise UserError(f"--samples {samples} must be at least 1")
    if samples > 1 and decoding.temperature == 0:
        raise UserError(
            f"--samples {samples} with temperature 0 would give {samples} times the same answer; "
            "set --temperature, for instance 0.7, or leave --samples out"
        )


def image_digest(image: ImageRef) -> str:
    """Return the SHA-256 of the encoded image where there is one, else of its size and pixels.

    Raises:
        DataError: it cannot be read.
    """
    found = hashlib.sha256()
    if isinstance(image.load, EncodedImage):
        try:
            with image.load.stream() as stream:
                while part := stream.read(_CHUNK):
                    found.update(part)
        except (OSError, ValueError) as error:
            raise (
                error if isinstance(error, DataError) else DataError(f"image {image.origin}: {error}")
            ) from error
    else:
        opened = image.open()
        found.update(f"{opened.size}".encode())
        found.update(opened.tobytes())
    return found.hexdigest()


def _jobs(
    question: Question, pictures: list[str], identity: Mapping[str, Any], decoding: Decoding, samples: int
) -> Iterator[Job]:
    asked = {"system": question.system_prompt, "text": question.text, "images": pictures}
    for sample in range(samples):
        seed = int(digest([decoding.seed, asked, sample])[:15], 16)
        everything = [VERSION, dict(identity), asked, decoding.settings(), sample]
        yield Job(question, sample, seed, digest(everything))


def _in_order(
    questions: Sequence[Question],
    samples: int,
    found: Mapping[tuple[str, int], Answer | Failure],
    answers: Answers,
) -> Answers:
    for place in [(question.id, sample) for question in questions for sample in range(samples)]:
        what = found[place]
        if isinstance(what, Failure):
            answers.failures[place] = what.reason
        else:
            name, sample = place
            answers.responses.append(
                Response(name, what.text, sample, finished=what.finished, tokens=what.tokens)
            )
    if found and not answers.responses:
        (name, _), reason = next(iter(answers.failures.items()))
        raise DataError(
            f"none of {len(questions):,} questions could be asked; the first one, {name}: {reason}"
        )
    return answers
