"""Generation of responses to a benchmark's questions: prompts, jobs, cache keys, failures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from data import DataError, Example, ImageRef
from data.images import EncodedImage
from eval.benchmark import Benchmark, Failure, Response
from eval.generate.cache import VERSION, Generation, GenerationCache, digest
from eval.generate.decoding import Decoding
from mm_cpgd.errors import UserError
from rewards import Status

# The engine of a server's identity.
ENDPOINT = "endpoint"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Question:
    """Prompt for one question of a benchmark.

    Attributes:
        id: the example's id.
        text: the prompt, choices included; ``<image>`` marks the place of an image, else images come first.
        images: opened only when needed.
        system_prompt: None for the default of the chat template.
    """

    id: str
    text: str
    images: tuple[ImageRef, ...] = ()
    system_prompt: str | None = None


@dataclass(frozen=True)
class Job:
    """One generation to be made.

    Attributes:
        question: the prompt.
        sample: 0 … k - 1.
        seed: the sample's seed; depends on the question and ``Decoding.seed``, not on the order of jobs.
        key: key of the generation in the cache.
    """

    question: Question
    sample: int
    seed: int
    key: str


class Generator(Protocol):
    """Source of generations: a local model or a server."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that determine the output, besides question and decoding.

        ``model`` is its name, ``model_id`` identifies the state of its weights.
        """
        ...

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Generation | Failure]]:
        """Run all jobs, in any order, with a bounded number of them in progress at any time."""
        ...


@dataclass
class Generations:
    """Responses generated for the questions of a benchmark.

    Attributes:
        responses: in the order of questions and samples; those with a ``failure`` stand for none.
        cached: number of responses that came from the cache.
        images: SHA-256 of all images' bytes, in order.
    """

    responses: list[Response] = field(default_factory=list)
    cached: int = 0
    images: str = ""

    @property
    def failures(self) -> dict[tuple[str, int], Failure]:
        """Failures by (id, sample)."""
        return {(one.id, one.sample): one.failure for one in self.responses if one.failure is not None}


class NoneAnswered(DataError):
    """No question has a response, for reasons that are not the benchmark's."""


def questions_of(
    benchmark: Benchmark, examples: Iterable[Example], system_prompt: str | None
) -> Iterator[Question]:
    """Yield the prompts of the benchmark's examples; choices are included in the text."""
    for example in examples:
        yield Question(example.id, benchmark.prompt(example), example.images, system_prompt)


def generate_responses(
    questions: Sequence[Question],
    generator: Generator,
    decoding: Decoding,
    *,
    samples: int = 1,
    cache: GenerationCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Generations:
    """Generate ``samples`` responses to every question; those in the cache are not generated again.

    Args:
        questions: with distinct ids.
        generator: receives the jobs that are not cached, in one stream.
        decoding: sampling settings.
        samples: responses per question.
        cache: read before and written after every generation; None stores nothing.
        progress: called with (responses so far, all responses).

    Raises:
        UserError: several samples without a temperature.
        NoneAnswered: nothing at all came back.
    """
    check_samples(samples, decoding)
    found: dict[tuple[str, int], Generation | Failure] = {}
    generations, images = Generations(), hashlib.sha256()

    def record(question: Question, sample: int, outcome: Generation | Failure) -> None:
        found[question.id, sample] = outcome
        if progress is not None:
            progress(len(found), len(questions) * samples)

    def missing() -> Iterator[Job]:
        for question in questions:
            try:
                digests = [image_digest(image) for image in question.images]
            except DataError as error:
                for sample in range(samples):
                    record(question, sample, Failure(str(error)))
                continue
            images.update("".join(digests).encode())
            for job in _jobs(question, digests, generator.identity, decoding, samples):
                known = None if cache is None else _known(cache, job.key, generator.identity)
                if known is None:
                    yield job
                else:
                    generations.cached += 1
                    record(question, job.sample, known)

    for job, outcome in generator.generate(missing(), decoding):
        if cache is not None and isinstance(outcome, Generation):
            cache.put(job.key, outcome)
        record(job.question, job.sample, outcome)
    generations.images = images.hexdigest()
    return _in_order(questions, samples, found, generations)


def check_samples(samples: int, decoding: Decoding) -> None:
    """Raise ``UserError`` if all samples would be the same."""
    if samples < 1:
        raise UserError(f"--samples {samples} must be at least 1")
    if samples > 1 and decoding.greedy:
        raise UserError(
            f"--samples {samples} with temperature 0 would generate the same response {samples} times; "
            "set --temperature, for instance to 0.7, or omit --samples"
        )


def image_digest(image: ImageRef) -> str:
    """Return the SHA-256 of the encoded image if it is available, else of its size and pixels.

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
    question: Question, images: list[str], identity: Mapping[str, Any], decoding: Decoding, samples: int
) -> Iterator[Job]:
    asked = {"system": question.system_prompt, "text": question.text, "images": images}
    for sample in range(samples):
        seed = int(digest([decoding.seed, asked, sample])[:15], 16)
        everything = [VERSION, dict(identity), asked, decoding.settings(), sample]
        yield Job(question, sample, seed, digest(everything))


def _in_order(
    questions: Sequence[Question],
    samples: int,
    found: Mapping[tuple[str, int], Generation | Failure],
    generations: Generations,
) -> Generations:
    for name, sample in [(question.id, sample) for question in questions for sample in range(samples)]:
        outcome = found[name, sample]
        generations.responses.append(
            Response(name, outcome.text, sample, failure=outcome)
            if isinstance(outcome, Failure)
            else Response(name, outcome.text, sample, finished=outcome.finished, tokens=outcome.tokens)
        )
    failures = generations.failures
    # Refusals and the like are a result.
    if found and [one.status for one in failures.values()] == [Status.NOT_ANSWERED] * len(found):
        (name, _), failure = next(iter(failures.items()))
        raise NoneAnswered(
            f"none of {len(questions):,} questions could be answered; the first one, {name}: {failure.reason}"
        )
    return generations


def _known(cache: GenerationCache, key: str, identity: Mapping[str, Any]) -> Generation | None:
    """Return the cached generation; former versions stored a server's empty replies, which are none."""
    found = cache.get(key)
    if found is None or identity.get("engine") != ENDPOINT:
        return found
    return found if found.text.strip() or found.finished is False else None
