"""Prompts: whose wording, templates, worked examples, questions without images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from data import DataError, Example, ImageRef, VideoRef
from data.example import split_at_images
from data.videos.pictures import PictureSequence
from eval.benchmark import Benchmark, Response
from eval.generate.questions import (
    Shots,
    prompt_of,
    questions_of,
    read_template,
    without_images,
    wording_of,
)
from mm_cpgd.errors import UserError
from rewards import Verdict

Noise = Callable[..., ImageRef]


def official(example: Example, response: Response) -> Verdict:
    raise AssertionError


OWN = Benchmark("own", "nowhere", lambda source: [], lambda one: f"{one.question} Ours.", official)
BOTH = dataclasses.replace(OWN, published=lambda one: f"{one.question} Theirs." if one.id != "no" else None)
THEIRS = dataclasses.replace(OWN, prompt_is_published=True)
ROW = Example("1", "How many?", "3")
CHOICE = Example("2", "Which?", "B", choices=("a {x}", "b {options}"))


def test_the_published_wording_is_the_default_and_ours_a_choice() -> None:
    assert prompt_of(BOTH, ROW) == "How many? Theirs."
    assert prompt_of(BOTH, ROW, "ours") == "How many? Ours."
    assert prompt_of(OWN, ROW) == prompt_of(OWN, ROW, "ours") == "How many? Ours."
    assert prompt_of(THEIRS, ROW) == "How many? Ours."
    assert prompt_of(THEIRS, ROW, "ours").endswith("alone in \\boxed{}.")


@pytest.mark.parametrize(
    ("benchmark", "prompt", "wording"),
    [
        (BOTH, "published", "published and ours"),
        (BOTH, "ours", "ours"),
        (OWN, "published", "ours"),
        (THEIRS, "published", "published"),
        (THEIRS, "ours", "ours"),
        (BOTH, "{question}!", "template"),
    ],
)
def test_a_result_says_whose_wording_it_has(benchmark: Benchmark, prompt: str, wording: str) -> None:
    rows = [ROW, dataclasses.replace(ROW, id="no")]
    assert wording_of(benchmark, rows, prompt) == wording


def test_a_template_gets_question_options_and_the_published_prompt() -> None:
    assert prompt_of(OWN, ROW, "Look: {question} \\boxed{}") == "Look: How many? \\boxed{}"
    assert prompt_of(BOTH, ROW, "{published} /think") == "How many? Theirs. /think"
    # Options are never lost, and placeholders in them stay what they are.
    assert prompt_of(OWN, CHOICE, "{question}\nGo.") == "Which?\n(A) a {x}\n(B) b {options}\nGo."
    assert prompt_of(OWN, CHOICE, "{options} of {question}") == "(A) a {x}\n(B) b {options} of Which?"
    within = dataclasses.replace(CHOICE, question="Which? A: a {x} B: b {options}")
    assert prompt_of(OWN, within, "{question}") == within.question


def test_a_template_is_a_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Think.\n{question}\n")
    assert read_template(str(tmp_path / "own.txt")) == "Think.\n{question}"
    assert [read_template(one) for one in ("published", "ours", "{question}?")] == [
        "published", "ours", "{question}?",
    ]  # fmt: skip
    (tmp_path / "none.txt").write_text("Think.")
    (tmp_path / "bytes").write_bytes(b"\xff{question}")
    for wrong in ("none.txt", "bytes", "missing.txt", "."):
        with pytest.raises(UserError, match="--prompt"):
            read_template(str(tmp_path / wrong))


def test_worked_examples_come_first_with_their_images(noise_image: Noise) -> None:
    pictures = [noise_image(56, 56, seed) for seed in range(4)]
    shots = [
        Example("a", "Left <image2> or right <image1>?", "left", (pictures[0], pictures[1])),
        Example("b", "How long?", "3 cm", (pictures[2],), solution="It is 1 + 2."),
    ]
    row = Example("q", "How many in <image>?", "7", (pictures[3],))
    (question,) = questions_of(OWN, [row], "S", prompt="{question}", shots=Shots(shots, 2))
    assert question.text == (
        "Example 1:\nLeft <image> or right <image>?\n\nThe answer is left.\n\n"
        "Example 2:\n<image>\nHow long?\n\nIt is 1 + 2.\nThe answer is 3 cm.\n\n"
        "Question:\nHow many in <image>?"
    )
    assert question.images == (pictures[1], pictures[0], pictures[2], pictures[3])
    order = [piece for piece in split_at_images(question.text, 4) if isinstance(piece, int)]
    assert order == [0, 1, 2, 3]
    assert (question.id, question.system_prompt) == ("q", "S")


def test_a_question_is_never_its_own_example() -> None:
    same = Example("other id", "How  MANY?", "3")
    other = Example("c", "How many?", "4")  # the same words about another picture
    shots = Shots([ROW, same, other], 1)
    (question,) = questions_of(OWN, [ROW], None, shots=shots)
    assert "The answer is 4." in question.text
    assert "The answer is 3." not in question.text
    reworded = Example("1", "How many are there?", "three")
    (question,) = questions_of(OWN, [ROW], None, shots=Shots([reworded, other], 1))
    assert "three" not in question.text
    with pytest.raises(DataError, match="only 1 examples are not the question 1 itself"):
        questions_of(OWN, [ROW], None, shots=Shots([ROW, same, other], 2))


def test_without_images_no_marker_is_left(noise_image: Noise) -> None:
    picture = noise_image(56, 56, 1)
    row = Example("q", "In <image1>, which?", "A", (picture,), choices=("<image1>", "none"))
    bare = without_images(row)
    assert (bare.question, bare.choices, bare.images) == ("In , which?", ("", "none"), ())
    assert bare.id == row.id
    (question,) = questions_of(OWN, [row], None, shots=Shots([row, bare], 0).without_images())
    assert "Example" not in question.text
    assert Shots([row], 1).without_images().examples == [bare]


def test_videos_stay_with_their_question_and_its_examples() -> None:
    def asked(name: str, question: str) -> Example:
        video = VideoRef(name, PictureSequence(name, (), 1.0))
        return Example(name, question, "7", videos=(video,))

    examples = [asked("first", "<video>How long?"), asked("second", "Is <video> long?")]
    (alone, _) = questions_of(OWN, examples, None)
    assert [video.origin for video in alone.videos] == ["first"]
    (both,) = questions_of(OWN, examples[:1], None, shots=Shots(tuple(examples[1:]), 1))
    assert [video.origin for video in both.videos] == ["second", "first"]
    assert both.text.count("<video>") == 2
    assert without_images(examples[1]) == dataclasses.replace(examples[1], question="Is  long?", videos=())
