r"""MathVista: 1,000 questions with an image (testmini), from 31 sources.

The benchmark scores in two stages: an LLM extracts the answer from a response, then code compares it
(``eval.official.mathvista``). Official here is the comparison of the stored ``extraction`` if there is one;
otherwise of what the benchmark extracts without an LLM (a response that is the answer, or ``The answer is
"…".``), or else of what ``eval.official.mathvista_extraction`` extracts by rule. ``judge:extraction``, which
is also ``judge``, extracts with an LLM and compares in the same way; its prompt is this project's, because
the licence of the published one (CC BY-SA 4.0) is not this project's. Multiple choice never abstains: an
extraction that names no option counts as the option nearest in spelling. By rule, a response that declines to
answer has no extraction, and is wrong.

Only judge:extraction, or official with stored extractions, gives numbers comparable to published ones; the
choice of the LLM alone changes them by some points. Results with extractions by rule are flagged.

The output format is the benchmark's: an object of rows by ``pid``, each a row of the data with ``response``
and, after extraction, ``extraction``. Its metadata override those of the data, because the totals of an
output depend on the release it was made with: the older one has "daily life" where the newer one has "not
applicable", and differs in some skills.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data import Example
from data.readers import RawRow
from eval.benchmark import Ask, Benchmark, DataSource, Response, lettered, with_images
from eval.judges.options import equal_by_type, judge_with_options
from eval.judges.wording import filled
from eval.loading import check_published, complete, published_example, published_rows
from eval.official import mathvista as scoring
from eval.official.mathvista_extraction import extract_by_rule
from rewards import Status, Verdict

_HUB = "AI4Math/MathVista"

COLUMNS = ("pid", "question", "choices", "precision", "answer", "question_type", "answer_type", "metadata")
DIMENSIONS = ("language", "source", "category", "task", "context", "grade", "skills")
_BOX = r"Reason step by step, then put {} in \boxed{{}}."
_WANTED = {
    "text": "the letter of the right option",
    "integer": "the answer, a whole number, as in 1, 2 or 3,",
    "float": "the answer, a decimal number",
    "list": "the answer, a list as Python writes it, as in [1, 2, 3],",
}
_DECIMALS = {1: " with one decimal place, as in 1.2,", 2: " with two decimal places, as in 1.23,"}
_MAX_CHARS = 8_000


def load(source: DataSource) -> list[Example]:
    """Read ``testmini.json`` and the images beside it, or the hub's copy. Raises ``DataError``."""
    rows = published_rows(source, hub=_HUB, split="testmini", file="{split}.json")
    return complete(map(_example, rows), "MathVista")


def _example(row: RawRow) -> Example:
    check_published(row, COLUMNS, "MathVista")
    values = row.values
    return published_example(
        row,
        id=values["pid"],
        question=values["question"],
        answer=values["answer"],
        images=("decoded_image",) if "decoded_image" in values else ("image",),
        choices=tuple(map(str, values["choices"] or ())),
    )


def prompt(example: Example) -> str:
    """Return the question with unit and options, and the request for the row's answer type in a box."""
    return with_images(f"{_question(example)}\n\n{_instruction(example)}", example)


def published(example: Example) -> str | None:
    """Return the prompt in the row's column ``query``, which the files on the hub have."""
    query = str(example.meta.get("query") or "").strip()
    return with_images(query, example) if query else None


def _question(example: Example) -> str:
    unit = example.meta.get("unit")
    question = example.question.strip() + (f" (Unit: {unit})" if unit else "")
    return f"{question}\n{lettered(example.choices)}" if example.choices else question


def _instruction(example: Example) -> str:
    kind, precision = example.meta["answer_type"], example.meta["precision"]
    decimals = _DECIMALS.get(int(precision), "") if kind == "float" and precision is not None else ""
    return _BOX.format(_WANTED.get(kind, "the answer") + decimals)


def official(example: Example, response: Response) -> Verdict:
    """Score the stored extraction, or one that needs no LLM, with the official comparison."""
    if response.extraction is not None:
        return _scored(example, response.extraction)
    kind = example.meta["answer_type"]
    extraction = scoring.quick_extraction(response.text, kind, example.choices)
    if extraction is None:
        extraction = extract_by_rule(response.text, kind, example.choices)
    if not extraction:
        return Verdict(0.0, Status.NO_ANSWER, None, "no extraction is stored, and no answer was found")
    return _scored(example, extraction)


def _scored(example: Example, extraction: str) -> Verdict:
    meta = example.meta
    return scoring.grade(extraction, example.answer, meta["answer_type"], example.choices, meta["precision"])


def judge(example: Example, response: Response, ask: Ask) -> Verdict:
    """Extract with an LLM, unless stored or unnecessary, and score. Raises what ``ask`` raises."""
    if (response.extraction or "").strip():
        return _scored(example, response.extraction or "")
    if not response.text:
        return Verdict(0.0, Status.NO_ANSWER, None, "the response is empty")
    extraction = scoring.quick_extraction(response.text, example.meta["answer_type"], example.choices)
    if extraction is None:
        asked = filled("extraction", question=_asked(example), response=response.text[-_MAX_CHARS:])
        extraction = ask(asked).strip()
    return _scored(example, extraction)


def _gold_letter(example: Example) -> str:
    return chr(65 + example.choices.index(example.answer))


def _asked(example: Example) -> str:
    return f"{_question(example)}\n{_instruction(example)}"


def by_rule(example: Example, response: Response) -> bool:
    """Return whether official has to extract by a rule of this project."""
    if response.extraction is not None or not response.text:
        return False
    return scoring.quick_extraction(response.text, example.meta["answer_type"], example.choices) is None


def groups(example: Example) -> dict[str, list[str]]:
    """Return the nine dimensions of the benchmark's totals; a question may have several skills."""
    about = example.meta.get("metadata") or {}
    found = {name: [str(example.meta[name])] for name in ("question_type", "answer_type")}
    for name in DIMENSIONS:
        value = about.get(name)
        found[name] = [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]
    return found


def read(record: Mapping[str, Any]) -> Response:
    """Read a row of the data with ``response``, and ``extraction`` after the extraction stage."""
    extraction = record.get("extraction")
    metadata = record.get("metadata")
    return Response(
        str(record["pid"]),
        str(record["response"] or ""),
        extraction=None if extraction is None else str(extraction),
        meta={"metadata": metadata} if isinstance(metadata, Mapping) else {},
    )


benchmark = Benchmark(
    name="mathvista",
    source="Lu et al. 2024, arXiv 2310.02255; github.com/lupantech/MathVista",
    load=load,
    prompt=prompt,
    published=published,
    official=official,
    groups=groups,
    judge=judge,
    judges={
        "extraction": judge,
        "mm-eureka": judge_with_options(_gold_letter, equal_by_type, _asked, after_tag=True),
    },
    by_rule=by_rule,
    read=read,
    title="MathVista",
    hub=_HUB,
    split="testmini",
)
