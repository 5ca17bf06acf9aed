r"""K12: 500 free-form questions on school mathematics, the predecessor of MMK12's test set.

It has no scoring of its own and no groups: official is the verifier's verdict, and the result is one
accuracy. The data are the folder ``eval/k12`` of github.com/ModalMinds/MM-EUREKA and are not on the hub.
"""

from __future__ import annotations

from data import DataError, Example
from data.readers import RawRow
from eval.benchmark import Benchmark, DataSource, verified, with_images
from eval.judges.whole import judge_whole
from eval.loading import check_published, complete, published_example, published_rows

COLUMNS = ("id", "question", "answer")
PROMPT = "{question}\n\n" r"Reason step by step, then give the final answer in \boxed{{}}."
_REPOSITORY = "github.com/ModalMinds/MM-EUREKA"


def load(source: DataSource) -> list[Example]:
    """Read ``k12.json``. Raises ``DataError``."""
    if source.path is None:
        raise DataError(f"K12 is not on the hub; give the folder eval/k12 of {_REPOSITORY} as data")
    rows = published_rows(source, hub=_REPOSITORY, split="k12", file="{split}.json")
    return complete(map(_example, rows), "K12")


def _example(row: RawRow) -> Example:
    check_published(row, COLUMNS, "K12")
    values = row.values
    return published_example(
        row,
        id=values["id"],
        question=values["question"],
        answer=values["answer"],
        images=("image_path",),
    )


def prompt(example: Example) -> str:
    """Return the question with the request to put the answer in a box."""
    return with_images(PROMPT.format(question=example.question.strip()), example)


benchmark = Benchmark(
    name="k12",
    source="Meng et al. 2025, arXiv 2503.07365; github.com/ModalMinds/MM-EUREKA",
    load=load,
    prompt=prompt,
    official=verified,
    judges={"mm-eureka": judge_whole},
)
