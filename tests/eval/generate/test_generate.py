"""Generation of responses: jobs, cache, samples, failures."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data import ImageRef
from data.images import image_ref
from eval.benchmark import Failure
from eval.generate.cache import Generation, GenerationCache
from eval.generate.decoding import Decoding
from eval.generate.forced import Forcing
from eval.generate.generate import (
    Job,
    NoneAnswered,
    Question,
    generate_responses,
    image_digest,
)
from eval.generate.outcomes import Generations
from mm_cpgd.errors import UserError
from rewards import Status

GREEDY = Decoding(100)
DRAWN = Decoding(100, temperature=0.7, seed=3)


class Fake:
    """Generator that returns its prompts, in reverse order."""

    def __init__(self, model_id: str = "w1", fails: str = "") -> None:
        self.identity: dict[str, Any] = {"model": "m", "model_id": model_id, "max_pixels": None}
        self.asked: list[tuple[str, int]] = []
        self.seeds: list[int] = []
        self.fails = fails

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Generation | Failure]]:
        for job in reversed(list(jobs)):
            self.asked.append((job.question.id, job.sample))
            self.seeds.append(job.seed)
            text = f"{job.question.text} #{job.sample}"
            yield job, Failure("no") if job.question.id == self.fails else Generation(text, True, 3)


def encoded(colour: str) -> ImageRef:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format="PNG")
    return image_ref(buffer.getvalue())


def questions() -> list[Question]:
    return [
        Question(str(i), f"Q{i}", (encoded(colour),)) for i, colour in enumerate(("red", "green", "blue"))
    ]


def run(path: Path, asked: list[Question], decoding: Decoding = GREEDY, **options: Any) -> list[str]:
    """Generate with the cache at this path; return the questions that were generated."""
    generator = Fake(options.pop("model_id", "w1"))
    with GenerationCache(path) as cache:
        generate_responses(asked, generator, decoding, cache=cache, **options)
    return sorted(name for name, _ in generator.asked)


def test_responses_come_in_the_order_of_questions_and_samples() -> None:
    found = generate_responses(questions(), Fake(), DRAWN, samples=2)
    assert [(one.id, one.sample, one.text) for one in found.responses] == [
        (str(i), sample, f"Q{i} #{sample}") for i in range(3) for sample in range(2)
    ]
    assert {(one.finished, one.tokens) for one in found.responses} == {(True, 3)}


def test_nothing_is_generated_twice(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    assert run(path, questions()) == ["0", "1", "2"]
    assert run(path, questions()) == []
    with GenerationCache(path) as cache:
        again = generate_responses(questions(), Fake(), GREEDY, cache=cache)
    assert again.cached == 3
    assert again.responses == generate_responses(questions(), Fake(), GREEDY).responses


def changed(**values: Any) -> list[Question]:
    first, *others = questions()
    return [dataclasses.replace(first, **values), *others]


@pytest.mark.parametrize(
    "first", [{"text": "Q0?"}, {"images": (encoded("pink"),)}, {"images": ()}, {"system_prompt": "Think."}]
)
def test_a_question_that_changed_is_generated_again_and_no_other(
    tmp_path: Path, first: dict[str, Any]
) -> None:
    path = tmp_path / "c.jsonl"
    run(path, questions())
    assert run(path, changed(**first)) == ["0"]


def test_a_question_that_only_moved_or_was_renamed_is_not_generated_again(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    run(path, questions(), DRAWN)
    assert run(path, changed(id="new")[::-1], DRAWN) == []


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(DRAWN, temperature=0.8),
        dataclasses.replace(DRAWN, top_p=0.9),
        dataclasses.replace(DRAWN, max_new_tokens=99),
        dataclasses.replace(DRAWN, seed=4),
        dataclasses.replace(DRAWN, top_k=5),
        dataclasses.replace(DRAWN, min_p=0.1),
        dataclasses.replace(DRAWN, request={"reasoning_effort": "low"}),
        GREEDY,
    ],
)
def test_other_sampling_settings_are_other_generations(tmp_path: Path, other: Decoding) -> None:
    path = tmp_path / "c.jsonl"
    run(path, questions(), DRAWN)
    assert run(path, questions(), other) == ["0", "1", "2"]


def test_other_weights_are_other_generations(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    run(path, questions())
    assert run(path, questions(), model_id="w2") == ["0", "1", "2"]


def test_a_seed_has_no_effect_on_greedy_responses(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    run(path, questions(), Decoding(100, seed=1, top_p=0.5))
    assert run(path, questions(), Decoding(100, seed=2)) == []


def test_more_samples_generate_only_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    run(path, questions(), DRAWN, samples=2)
    generator = Fake()
    with GenerationCache(path) as cache:
        found = generate_responses(questions(), generator, DRAWN, samples=3, cache=cache)
    assert sorted(generator.asked) == [("0", 2), ("1", 2), ("2", 2)]
    assert len(found.responses) == 9


def test_every_sample_of_every_question_has_its_own_seed_whatever_its_place() -> None:
    one, other = Fake(), Fake()
    generate_responses(questions(), one, DRAWN, samples=4)
    generate_responses(questions()[1:], other, DRAWN, samples=4)
    assert len(set(one.seeds)) == 12
    assert set(other.seeds) < set(one.seeds)


def test_an_interrupted_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    class Interrupted(Fake):
        def generate(
            self, jobs: Iterable[Job], decoding: Decoding
        ) -> Iterator[tuple[Job, Generation | Failure]]:
            for done in super().generate(jobs, decoding):
                if len(self.asked) == 3:
                    raise KeyboardInterrupt
                yield done

    path = tmp_path / "c.jsonl"
    with GenerationCache(path) as cache, pytest.raises(KeyboardInterrupt):
        generate_responses(questions(), Interrupted(), GREEDY, cache=cache)
    # The last two had been generated.
    assert run(path, questions()) == ["0"]


def test_an_unreadable_image_fails_only_its_own_question(tmp_path: Path) -> None:
    rows = [*questions(), Question("lost", "Q", (image_ref(tmp_path / "lost.png"),))]
    generator = Fake(fails="1")
    found = generate_responses(rows, generator, DRAWN, samples=2)
    assert {one.id for one in found.responses if one.failure is None} == {"0", "2"}
    assert {place: failure.reason for place, failure in found.failures.items() if place[0] == "1"} == {
        ("1", 0): "no",
        ("1", 1): "no",
    }
    assert "lost.png" in found.failures["lost", 1].reason
    assert {failure.status for failure in found.failures.values()} == {Status.NOT_ANSWERED}
    assert "lost" not in {name for name, _ in generator.asked}


def test_a_failed_response_is_generated_again_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with GenerationCache(path) as cache:
        generate_responses(questions(), Fake(fails="1"), GREEDY, cache=cache)
    assert run(path, questions()) == ["1"]


def test_a_run_in_which_no_response_can_be_generated_reports_the_reason(tmp_path: Path) -> None:
    rows = [Question(str(i), "Q", (image_ref(tmp_path / "lost.png"),)) for i in range(3)]
    with pytest.raises(NoneAnswered, match=r"none of 3 questions .* 0: .*lost\.png"):
        generate_responses(rows, Fake(), GREEDY)


def test_several_samples_without_a_temperature_are_refused() -> None:
    with pytest.raises(UserError, match="--temperature"):
        generate_responses(questions(), Fake(), GREEDY, samples=2)


def test_an_empty_reply_that_a_former_version_cached_is_asked_for_again(tmp_path: Path) -> None:
    class Served(Fake):
        def generate(
            self, jobs: Iterable[Job], decoding: Decoding
        ) -> Iterator[tuple[Job, Generation | Failure]]:
            for job, _ in super().generate(jobs, decoding):
                yield job, Generation("", job.question.id != "1")

    here, server = Served(), Served("server")
    server.identity["engine"] = "endpoint"
    for generator in (here, server):
        with GenerationCache(tmp_path / f"{len(generator.identity)}.jsonl") as cache:
            for _ in range(2):
                generate_responses(questions(), generator, GREEDY, cache=cache)
    assert sorted(here.asked) == [("0", 0), ("1", 0), ("2", 0)]
    # Cut off at the limit, it is a response.
    assert sorted(server.asked) == [("0", 0), ("0", 0), ("1", 0), ("2", 0), ("2", 0)]


def test_no_question_is_prepared_before_the_generator_requests_it() -> None:
    opened: list[int] = []

    def make_image(number: int) -> ImageRef:
        def load() -> Image.Image:
            opened.append(number)
            return Image.new("RGB", (2, 2))

        return ImageRef(str(number), load)

    class OneByOne(Fake):
        def generate(
            self, jobs: Iterable[Job], decoding: Decoding
        ) -> Iterator[tuple[Job, Generation | Failure]]:
            for done, job in enumerate(jobs):
                assert opened == list(range(done + 1))
                yield job, Generation("")

    rows = [Question(str(i), f"Q{i}", (make_image(i),)) for i in range(5)]
    assert len(generate_responses(rows, OneByOne(), GREEDY).responses) == 5


def test_progress_counts_every_response_cached_or_generated(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    with GenerationCache(tmp_path / "c.jsonl") as cache:
        generate_responses(questions()[:1], Fake(), GREEDY, cache=cache)
        rows = [*questions(), Question("lost", "Q", (image_ref(tmp_path / "lost.png"),))]
        generate_responses(
            rows, Fake(), GREEDY, cache=cache, progress=lambda done, total: reported.append((done, total))
        )
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_images_are_identified_by_bytes_or_by_size_and_pixels() -> None:
    def drawn(size: tuple[int, int], colour: str) -> ImageRef:
        return ImageRef("drawn", lambda: Image.new("RGB", size, colour))

    kinds = [
        encoded("red"),
        encoded("blue"),
        drawn((2, 6), "red"),
        drawn((6, 2), "red"),
        drawn((2, 6), "blue"),
    ]
    assert len({image_digest(kind) for kind in kinds}) == 5
    assert image_digest(encoded("red")) == image_digest(encoded("red"))


def test_the_images_of_a_run_have_one_fingerprint() -> None:
    def of(rows: list[Question]) -> str:
        found: Generations = generate_responses(rows, Fake(), GREEDY)
        return found.images

    assert of(questions()) == of(changed(text="other"))
    assert of(questions()) != of(changed(images=(encoded("pink"),)))


class Endless(Fake):
    """Generator whose first responses are cut off; it completes them to "7}"."""

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Generation | Failure]]:
        for job in jobs:
            self.asked.append((job.question.beginning, decoding.max_new_tokens))
            if not job.question.beginning:
                yield job, Generation(f"<think>{job.question.id}", job.question.id == "1", 5)
            elif job.question.id == self.fails:
                yield job, Failure("no")
            else:
                yield job, Generation("7}", True, 2)


FORCING = Forcing("\n\\boxed{", 8)


def test_a_response_that_was_cut_off_is_continued_once_after_the_text() -> None:
    generator = Endless()
    found = generate_responses(questions(), generator, GREEDY, forcing=FORCING)
    begun = ["<think>0\n</think>\n\\boxed{", "<think>2\n</think>\n\\boxed{"]
    assert generator.asked == [("", 100)] * 3 + [(text, 8) for text in begun]
    assert [one.text for one in found.responses] == [f"{begun[0]}7}}", "<think>1", f"{begun[1]}7}}"]
    # It stays a response that was cut off.
    assert [(one.finished, one.forced, one.tokens) for one in found.responses] == [
        (False, True, 7), (True, False, 5), (False, True, 7),
    ]  # fmt: skip


def test_what_cannot_be_continued_stays_as_it_was() -> None:
    found = generate_responses(questions(), Endless(fails="2"), GREEDY, forcing=FORCING)
    assert found.responses[2].text == "<think>2"
    assert [one.forced for one in found.responses] == [True, False, False]
    assert found.not_forced == {("2", 0): Failure("no")}
    assert found.failures == {}


def test_continuations_are_cached_and_depend_on_the_text(tmp_path: Path) -> None:
    counts = []
    with GenerationCache(tmp_path / "c.jsonl") as cache:
        for forcing in (None, FORCING, FORCING, Forcing("!", 8), Forcing("!", 9)):
            generator = Endless()
            generate_responses(questions(), generator, GREEDY, cache=cache, forcing=forcing)
            counts.append(len(generator.asked))
    assert counts == [3, 2, 0, 2, 2]
