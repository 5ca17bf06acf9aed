r"""MathVision (MATH-V): 3,040 competition questions with an image; the split ``testmini`` has 304 of them.

Scored without an LLM by ``eval.official.mathvision``, which reproduces ``correct`` and the totals of
published outputs from the raw responses. Half of the questions have options A to E; an answer is right if
it is the gold letter or equals the gold option's text. The totals of the benchmark correspond to these
groups: ``-all`` is overall, ``-level3`` the level 3, ``algebra`` the subject, ``algebra_level3`` and
``-level3_algebra`` the subject and level "algebra, level 3".

Every question has one image. If the text refers to several, the image is composed of them, each with its
name; the prompt then begins with the image, and the text has "image 2" in place of a marker.

An output file has one row per line with ``id`` and ``response``; its ``model_answer`` and ``correct`` are not
read.
"""

from __future__ import annotations

from data import Example
from data.example import MARKER
from data.readers import RawRow
from eval.benchmark import Benchmark, DataSource, Response, lettered
from eval.judges.options import equal_by_value, judge_with_options
from eval.judges.whole import question_of
from eval.loading import check_published, complete, published_example, published_rows
from eval.official import mathvision as scoring
from rewards import Verdict

_HUB = "MathLLMs/MathVision"

COLUMNS = ("id", "question", "options", "answer", "level", "subject")
LETTER = (
    r"Solve the problem step by step. Put the letter of the right option alone in \boxed{}, as in \boxed{A}."
)
VALUE = r"Solve the problem step by step. Put the final answer alone in \boxed{}."
# models/Qwen-VL.py of github.com/mathllm/MATH-V (MIT licence).
PUBLISHED = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
    'choice question, only one letter is allowed in the "\\boxed{}".\n'
)
# Placeholder for the marker that is kept while the others are replaced by words.
_PLACE = "\x00"


def load(source: DataSource) -> list[Example]:
    """Read ``test.jsonl`` or ``testmini.jsonl`` with its images, or the hub's copy. Raises ``DataError``."""
    rows = published_rows(source, hub=_HUB, split="test", file="{split}.jsonl")
    return complete(map(_example, rows), "MathVision")


def _example(row: RawRow) -> Example:
    check_published(row, COLUMNS, "MathVision")
    values = row.values
    return published_example(
        row,
        id=values["id"],
        question=values["question"],
        answer=values["answer"],
        images=("decoded_image",) if "decoded_image" in values else ("image",),
        choices=tuple(map(str, values["options"] or ())),
    )


def prompt(example: Example) -> str:
    """Return the question with its options as a list, and the request for a letter or value in a box."""
    text = f"{example.question.strip()}\n{lettered(example.choices)}".strip()
    return f"{_with_image(text, example)}\n\n{LETTER if example.choices else VALUE}"


def published(example: Example) -> str:
    """Return the published prompt; options that are only letters are in the image, and not listed."""
    listed = "" if "".join(example.choices) == "ABCDE" else lettered(example.choices)
    return _with_image(f"{PUBLISHED}{example.question.strip()}\n{listed}".strip(), example)


def _with_image(text: str, example: Example) -> str:
    """Keep one marker per image of the example; the others become the names of the image's regions."""
    numbers = {int(number or 1) for number in MARKER.findall(text)}
    in_place = numbers == {1} and len(example.images) == 1
    if in_place:
        text = MARKER.sub(_PLACE, text, count=1)
    text = MARKER.sub(lambda mark: f"image {mark[1] or 1}", text)
    return text.replace(_PLACE, "<image>") if in_place else "<image>\n" * len(example.images) + text


def official(example: Example, response: Response) -> Verdict:
    """Score the complete response with the official scoring."""
    return scoring.grade(response.text, example.answer, example.choices)


def groups(example: Example) -> dict[str, list[str]]:
    """Return level (1 to 5), subject (one of 16), and both."""
    level, subject = str(example.meta["level"]), str(example.meta["subject"])
    return {"level": [level], "subject": [subject], "subject and level": [f"{subject}, level {level}"]}


benchmark = Benchmark(
    name="mathvision",
    source="Wang et al. 2024, arXiv 2402.14804; github.com/mathllm/MATH-V",
    load=load,
    prompt=prompt,
    published=published,
    official=official,
    groups=groups,
    judges={"mm-eureka": judge_with_options(lambda example: example.answer, equal_by_value, question_of)},
    title="MATH-Vision",
    hub=_HUB,
    split="test",
)
