r"""MMK12: 2,000 multiple-choice questions on school mathematics, physics, chemistry and biology, 500 of each.

The options are part of the question's text; the gold answer is a letter. Official here: the letter of the
final answer, requested in \boxed{}, equals the gold one. The verifier also accepts the option's text.
"""

from __future__ import annotations

from data import Example
from data.readers import RawRow
from eval.benchmark import Benchmark, DataSource, Response, options_with, with_images
from eval.judges.whole import judge_marked
from eval.loading import check_published, complete, published_example, published_rows
from eval.official.verdicts import picked
from rewards import Status, Verdict, extract_answer
from rewards.math.choices import letters_in

_HUB = "FanqingM/MMK12"

COLUMNS = ("id", "question", "answer", "subject")
PROMPT = (
    "{question}\n\n"
    r"One option is right. Reason step by step, then give its letter alone in \boxed{{}}, as in \boxed{{A}}."
)


def load(source: DataSource) -> list[Example]:
    """Read the split test of 2,000 rows. Raises ``DataError``."""
    rows = published_rows(
        source,
        hub=_HUB,
        split="test",
        file="{split}.parquet",
        hub_files="data/{split}-*",
    )
    return complete(map(_example, rows), "MMK12")


def _example(row: RawRow) -> Example:
    check_published(row, COLUMNS, "MMK12")
    values = row.values
    gold = "".join(sorted(letters_in(str(values["answer"])))) or str(values["answer"])
    return published_example(
        row,
        id=values["id"],
        question=values["question"],
        answer=gold,
        choices=options_with(gold, values["question"]),
    )


def prompt(example: Example) -> str:
    """Return the question with the request to put the letter in a box."""
    return with_images(PROMPT.format(question=example.question.strip()), example)


def official(example: Example, response: Response) -> Verdict:
    """Compare the letter of the final answer with the gold letter."""
    answer = response.extraction if response.extraction is not None else extract_answer(response.text)
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the response")
    letters = "".join(sorted(letters_in(answer)))
    if not letters:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"{answer[:60]!r} is not an option's letter")
    return picked(letters, example.answer)


def groups(example: Example) -> dict[str, list[str]]:
    """Return the subject."""
    return {"subject": [str(example.meta.get("subject") or "not given")]}


benchmark = Benchmark(
    name="mmk12",
    source="Meng et al. 2025, arXiv 2503.07365; huggingface.co/datasets/FanqingM/MMK12",
    load=load,
    prompt=prompt,
    official=official,
    groups=groups,
    judges={"mm-eureka": judge_marked},
    title="MMK12",
    hub=_HUB,
    split="test",
)
