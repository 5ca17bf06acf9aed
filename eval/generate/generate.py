"""Generation of responses to a benchmark's questions: jobs, cache keys, failures, shares of processes."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from data import DataError, ImageRef, VideoRef
from data.images import EncodedImage
from data.videos.pictures import PictureSequence
from data.videos.reference import video_content
from eval.benchmark import Failure
from eval.generate.cache import VERSION, Generation, GenerationCache, digest
from eval.generate.decoding import Decoding
from eval.generate.forced import Forcing
from eval.generate.outcomes import Generations, Outcomes, in_order
from eval.generate.processes import ALONE, Processes
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
        beginning: beginning of the response, which the model continues.
        videos: like the images, with ``<video>``.
    """

    id: str
    text: str
    images: tuple[ImageRef, ...] = ()
    system_prompt: str | None = None
    beginning: str = ""
    videos: tuple[VideoRef, ...] = ()


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


class NoneAnswered(DataError):
    """No question has a response, for reasons that are not the benchmark's."""


def generate_responses(
    questions: Sequence[Question],
    generator: Generator,
    decoding: Decoding,
    *,
    samples: int = 1,
    cache: GenerationCache | None = None,
    progress: Callable[[int, int], None] | None = None,
    forcing: Forcing | None = None,
    processes: Processes = ALONE,
) -> Generations:
    """Generate ``samples`` responses to every question; those in the cache are not generated again.

    Args:
        questions: with distinct ids.
        generator: receives the jobs that are not cached, in one stream.
        decoding: sampling settings.
        samples: responses per question.
        cache: read before and written after every generation; None stores nothing.
        progress: called with (responses so far, all responses) of this process.
        forcing: continues responses that were cut off.
        processes: share the questions; all of them call this with the same arguments.

    Returns:
        The responses to all questions on the main process; to its own share on each other.

    Raises:
        UserError: several samples without a temperature.
        NoneAnswered: nothing at all came back.
        UserError, DataError: on all processes, if one of them cannot generate.
    """
    check_samples(samples, decoding)
    own, outcomes = processes.share(questions), Outcomes()
    work = _Work(generator, cache, samples, outcomes, progress)

    def generate() -> None:
        work.generate(own, decoding)
        if forcing is not None:
            work.force(own, forcing, decoding)

    processes.together(generate)
    for part in processes.gather(outcomes):
        outcomes.update(part)
    asked = questions if processes.is_main else own
    generations = in_order([one.id for one in asked], samples, outcomes)
    processes.together(lambda: _check_some(generations, len(questions)) if processes.is_main else None)
    return generations


@dataclass
class _Work:
    """Generation of one process's share."""

    generator: Generator
    cache: GenerationCache | None
    samples: int
    outcomes: Outcomes
    progress: Callable[[int, int], None] | None

    def generate(self, questions: Sequence[Question], decoding: Decoding) -> None:
        """Generate the responses to these questions."""

        def record(job: Job, outcome: Generation | Failure, cached: bool) -> None:
            if cached:
                self.outcomes.cached.add((job.question.id, job.sample))
            self._record(job.question, job.sample, outcome, len(questions))

        def jobs() -> Iterator[Job]:
            for question in questions:
                try:
                    digests = [image_digest(image) for image in question.images]
                    digests += [video_digest(video) for video in question.videos]
                except DataError as error:
                    for sample in range(self.samples):
                        self._record(question, sample, Failure(str(error)), len(questions))
                    continue
                self.outcomes.images[question.id] = digests
                yield from _jobs(question, digests, self.generator.identity, decoding, range(self.samples))

        self._run(jobs(), decoding, record)

    def force(self, questions: Sequence[Question], forcing: Forcing, decoding: Decoding) -> None:
        """Continue the responses that were cut off."""
        limited = forcing.decoding(decoding)

        def record(job: Job, outcome: Generation | Failure, cached: bool) -> None:
            cut = self.outcomes.found[job.question.id, job.sample]
            if isinstance(cut, Generation) and isinstance(outcome, Generation):
                outcome = forcing.joined(cut, outcome)
            self.outcomes.forced[job.question.id, job.sample] = outcome

        def jobs() -> Iterator[Job]:
            for question in questions:
                for sample in range(self.samples):
                    cut = self.outcomes.found[question.id, sample]
                    if isinstance(cut, Generation) and cut.finished is False:
                        begun = replace(question, beginning=forcing.beginning(cut.text))
                        digests = self.outcomes.images[question.id]
                        yield from _jobs(begun, digests, self.generator.identity, limited, [sample])

        self._run(jobs(), limited, record)

    def _run(
        self,
        jobs: Iterator[Job],
        decoding: Decoding,
        record: Callable[[Job, Generation | Failure, bool], None],
    ) -> None:
        """Take the generations from the cache, else from the generator."""

        def missing() -> Iterator[Job]:
            for job in jobs:
                known = None if self.cache is None else _known(self.cache, job.key, self.generator.identity)
                if known is None:
                    yield job
                else:
                    record(job, known, True)

        for job, outcome in self.generator.generate(missing(), decoding):
            if self.cache is not None and isinstance(outcome, Generation):
                self.cache.put(job.key, outcome)
            record(job, outcome, False)

    def _record(self, question: Question, sample: int, outcome: Generation | Failure, questions: int) -> None:
        self.outcomes.found[question.id, sample] = outcome
        if self.progress is not None:
            self.progress(len(self.outcomes.found), questions * self.samples)


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


def video_digest(video: VideoRef) -> str:
    """Return the SHA-256 of the encoded video and its clip, or of its frames if it is a list of images.

    Raises:
        DataError: it cannot be read.
    """
    content = video_content(video)
    if isinstance(content, PictureSequence):
        clip = [content.fps, content.start, content.end]
        return digest([*map(image_digest, content.pictures), *clip])
    try:
        return hashlib.sha256(pickle.dumps(content)).hexdigest()
    except (pickle.PicklingError, AttributeError, TypeError):
        return digest([video.origin])


def _jobs(
    question: Question,
    images: list[str],
    identity: Mapping[str, Any],
    decoding: Decoding,
    samples: Iterable[int],
) -> Iterator[Job]:
    asked: dict[str, Any] = {"system": question.system_prompt, "text": question.text, "images": images}
    if question.beginning:
        asked["beginning"] = question.beginning
    for sample in samples:
        seed = int(digest([decoding.seed, asked, sample])[:15], 16)
        everything = [VERSION, dict(identity), asked, decoding.settings(), sample]
        yield Job(question, sample, seed, digest(everything))


def _check_some(generations: Generations, questions: int) -> None:
    """Raise ``NoneAnswered`` if there is no response; refusals and the like are a result."""
    failures = generations.failures
    statuses = [one.status for one in failures.values()]
    if failures and statuses == [Status.NOT_ANSWERED] * len(generations.responses):
        (name, _), failure = next(iter(failures.items()))
        raise NoneAnswered(
            f"none of {questions:,} questions could be answered; the first one, {name}: {failure.reason}"
        )


def _known(cache: GenerationCache, key: str, identity: Mapping[str, Any]) -> Generation | None:
    """Return the cached generation; former versions stored a server's empty replies, which are none."""
    found = cache.get(key)
    if found is None or identity.get("engine") != ENDPOINT:
        return found
    return found if found.text.strip() or found.finished is False else None
