r"""MathVision (MATH-V): 3,040 competition questions with a picture; the split ``testmini`` has 304 of them.

Scored by rule alone: ``eval.official.mathvision`` has it, and reproduces the ``correct`` and the totals of
published outputs from the raw responses. Half of the questions have options A to E; an answer is right if
it is the gold letter or equals the gold option's text. The totals that the benchmark writes are these
groups: ``-all`` is overall, ``-level3`` the level 3, ``algebra`` the subject, ``algebra_level3`` and
``-level3_algebra`` the subject and level "algebra, level 3".

Every question has one picture. Where the text speaks of several, the picture is put together of them, each
under its name; the prompt then begins with it, and the text says "image 2" where it had a marker.

An output file has a row a line with ``id`` and ``response``; its ``model_answer`` and ``correct`` are not
read.
"""

from __future__ import annotations

from data import Example, Row
from data.example import MARKER
from eval.benchmark import Benchmark, DataSource, Response
from eval.loading import check_published, complete, published_example, published_rows
from eval.official import mathvision as rules
from rewards import Verdict

COLUMNS = ("id", "question", "options", "answer", "level", "subject")
LETTER = (
    r"Solve the problem step by step. Put the letter of the right option alone in \boxed{}, as in \boxed{A}."
)
VALUE = r"Solve the problem step by step. Put the final answer alone in \boxed{}."
# Stands for the marker that stays while the others are spelt out.
_PLACE = "\x00"


def load(source: DataSource) -> list[Example]:
    """Read ``test.jsonl`` or ``testmini.jsonl`` with its images, or the hub's copy. Raises ``DataError``."""
    rows = published_rows(source, hub="MathLLMs/MathVision", split="test", file="{split}.jsonl")
    return complete(map(_example, rows), "MathVision")


def _example(row: Row) -> Example:
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
    """Ask with the options in a list, for the letter or the answer in a box."""
    options = [f"({chr(65 + index)}) {text}" for index, text in enumerate(example.choices)]
    text = "\n".join([example.question.strip(), *options])
    return f"{_with_picture(text, example)}\n\n{LETTER if options else VALUE}"


def _with_picture(text: str, example: Example) -> str:
    """Leave one marker for each image that the example has; the others become the names of its parts."""
    parts = {int(number or 1) for number in MARKER.findall(text)}
    in_place = parts == {1} and len(example.images) == 1
    if in_place:
        text = MARKER.sub(_PLACE, text, count=1)
    text = MARKER.sub(lambda mark: f"image {mark[1] or 1}", text)
    return text.replace(_PLACE, "<image>") if in_place else "<image>\n" * len(example.images) + text


def official(example: Example, response: Response) -> Verdict:
    """Score the whole response by the benchmark's rule."""
    return rules.judge(response.text, example.answer, example.choices)


def groups(example: Example) -> dict[str, list[str]]:
    """Level (1 to 5), subject (16), and both."""
    level, subject = str(example.meta["level"]), str(example.meta["subject"])
    return {"level": [level], "subject": [subject], "subject and level": [f"{subject}, level {level}"]}


benchmark = Benchmark(
    name="mathvision",
    source="Wang et al. 2024, arXiv 2402.14804; github.com/mathllm/MATH-V",
    load=load,
    prompt=prompt,
    official=official,
    groups=groups,
)
