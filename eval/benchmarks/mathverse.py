r"""MathVerse: 788 problems in five versions, each with more of the question in the image.

testmini has 3,940 rows, 788 of each of the five versions; ``--split testmini_text_only`` is a sixth version
without images, 788 more rows, and ``--split all`` both. The benchmark's own total is over the five versions;
with ``all`` it is in the metrics. Rows of the sixth version have ids like ``text-only-12``, because their
``sample_index`` starts at 1 again. Each version is also a split: ``--split vision-only``, ``text-lite``, …

The benchmark scores with an LLM, once to extract the answer and once to judge it 0 or 1; without one, by
string equality. Official here: the extraction (the stored one, else this project's) equals the gold answer
as text, ignoring case and surrounding spaces, or names the same letters in multiple choice. ``judge``
extracts, unless an extraction is stored, and then compares, unless official finds them equal; with this
project's prompts. ``judge:published`` does both as the benchmark does, with its prompts
(``eval.judges.mathverse``). Only the judges' numbers are comparable to published ones, judge:published first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from data import DataError, Example
from data.readers import RawRow
from eval.benchmark import Ask, Benchmark, DataSource, Response, options_with, with_images
from eval.judges.mathverse import judge_as_mm_eureka, judge_as_published
from eval.loading import check_published, complete, published_example, published_rows
from eval.scoring.judgement import ONE_DIGIT, judged_by_digit, unfenced
from rewards import Status, Verdict, extract_answer
from rewards.math.choices import letters_in
from rewards.messages import short

_HUB = "AI4Math/MathVerse"

COLUMNS = ("sample_index", "problem_version", "question", "answer", "question_type")
VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
TEXT_ONLY = "Text Only"
SPLITS = {
    "testmini": ["testmini"],
    "testmini_text_only": ["testmini_text_only"],
    "all": ["testmini", "testmini_text_only"],
}
# Each version by its name as a split: "vision-only" has the rows of "Vision Only".
VERSION_SPLITS = {name.lower().replace(" ", "-"): name for name in (*VERSIONS, TEXT_ONLY)}
LETTER = r"Reason step by step, then give the letter of the right option alone in \boxed{}, as in \boxed{A}."
VALUE = r"Reason step by step, then give the final answer alone in \boxed{}."
IN_IMAGE = "The question is written in the image."
EXTRACTION = """\
Below is what a student wrote about a mathematics question, between the lines of dashes. Copy out the final \
answer that the student gives: the letter if an option is chosen, else the value, expression or sentence, \
unchanged and with its unit. Write nothing else. If no final answer is given, write null.

--------
{response}
--------"""
JUDGEMENT = """\
Is a student's answer to a mathematics question right? It is right only if it agrees completely with the \
reference answer. Other wording, notation or units of the same value agree; so do an option's letter and text.

Question:
{question}

Reference answer: {gold}
Student's answer: {answer}

Reply with a single digit: 1 if the student's answer is right, 0 if it is not."""
_NOTHING = ("", "null", "none")
_MAX_CHARS = 8_000


def load(source: DataSource) -> list[Example]:
    """Read ``testmini.json``, images beside it, or the hub's copy. Raises ``DataError``."""
    version = VERSION_SPLITS.get((source.split or "").lower().replace("_", "-").replace(" ", "-"))
    if version:
        return _of_version(source, version)
    return complete(map(_example, _rows(source)), "MathVerse")[: source.limit]


def _of_version(source: DataSource, version: str) -> list[Example]:
    """Read the rows of one version; a single file may hold any."""
    single = source.path is not None and Path(source.path).expanduser().is_file()
    part = None if single else "testmini_text_only" if version == TEXT_ONLY else "testmini"
    rows = map(_example, _rows(replace(source, split=part, limit=None)))
    own = [example for example in rows if example.meta["problem_version"] == version]
    if not own:
        raise DataError(f"MathVerse in {source.path or 'the hub'} has no row of the version {version!r}")
    return complete(own, "MathVerse")[: source.limit]


def _rows(source: DataSource) -> Iterator[RawRow]:
    parts = SPLITS.get(source.split or "testmini", [source.split or "testmini"])
    if source.path is not None and Path(source.path).expanduser().is_file():
        yield from published_rows(source, hub=_HUB, split=parts[0], file="")
        return
    for part in parts:
        one = replace(source, split=source.split and part)
        # On the hub, each split is a configuration of its own.
        config = part if source.path is None else None
        yield from published_rows(one, hub=_HUB, config=config, split=part, file="{split}.json")


def _example(row: RawRow) -> Example:
    check_published(row, COLUMNS, "MathVerse")
    values = row.values
    question, gold = str(values["question"] or ""), str(values["answer"]).strip()
    multiple = values["question_type"] == "multi-choice"
    with_options = question or str(values.get("question_for_eval") or "")
    return published_example(
        row,
        id=_id(values),
        question=question or IN_IMAGE,
        answer=gold,
        choices=options_with(gold, with_options) if multiple else (),
    )


def _id(values: Mapping[str, Any]) -> str:
    index = str(values["sample_index"])
    return f"text-only-{index}" if values["problem_version"] == TEXT_ONLY else index


def prompt(example: Example) -> str:
    """Return the published question, choices included; in Vision Only it is in the image."""
    instruction = LETTER if example.meta["question_type"] == "multi-choice" else VALUE
    return with_images(f"{example.question.strip()}\n\n{instruction}", example)


def published(example: Example) -> str | None:
    """Return the prompt in the row's column ``query_cot``, which asks for the reasoning first."""
    query = str(example.meta.get("query_cot") or "").strip()
    return with_images(query, example) if query else None


def official(example: Example, response: Response) -> Verdict:
    """Compare the extraction with the gold answer as texts, and as letters."""
    answer = response.extraction if response.extraction is not None else extract_answer(response.text)
    return _compared(example, answer) or Verdict(
        0.0, Status.WRONG, answer, f"{_short(answer)} is not the text of {_short(example.answer)}"
    )


def _compared(example: Example, answer: str | None) -> Verdict | None:
    """Return a verdict that needs no judge: there is no answer, or both are the same."""
    if _bare(answer) in _NOTHING:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was extracted")
    same = _bare(answer) == _bare(example.answer)
    if not same and example.meta["question_type"] == "multi-choice":
        letters = letters_in(answer or "")
        same = bool(letters) and letters == letters_in(example.answer)
    reason = f"{_short(answer)} is {_short(example.answer)}"
    return Verdict(1.0, Status.CORRECT, answer, reason) if same else None


def _bare(text: str | None) -> str:
    return (text or "").strip().lower()


def _short(text: str | None) -> str:
    return short(text or "", 60, keep=57)


def judge(example: Example, response: Response, ask: Ask) -> Verdict:
    """Extract the answer with an LLM, unless it is stored, and judge it. Raises what ``ask`` raises."""
    answer = response.extraction
    if answer is None:
        text = response.text[-_MAX_CHARS:].strip()
        answer = unfenced(ask(EXTRACTION.format(response=text))) if text else ""
    return _compared(example, answer) or _judged(example, answer[:_MAX_CHARS], ask)


def _judged(example: Example, answer: str, ask: Ask) -> Verdict:
    question = example.meta.get("question_for_eval") or example.question
    prompt = JUDGEMENT.format(question=question, gold=example.answer, answer=answer)

    def reason(right: bool) -> str:
        relation = "equal" if right else "unequal"
        return f"the judge finds {_short(answer)} {relation} to {_short(example.answer)}"

    return judged_by_digit(prompt, ONE_DIGIT, ask, answer, reason)


def by_rule(example: Example, response: Response) -> bool:
    """Return whether official has to extract by a rule of this project."""
    return response.extraction is None and bool(response.text)


def groups(example: Example) -> dict[str, list[str]]:
    """Return version, subject, and subfield with its subject, because two subjects have a "Length"."""
    meta = example.meta
    about = meta.get("metadata") or meta.get("category") or {}
    subject, subfield = (str(about.get(name) or "not given") for name in ("subject", "subfield"))
    return {
        "problem version": [str(meta["problem_version"])],
        "subject": [subject],
        "subfield": [f"{subject}: {subfield}"],
    }


def metrics(scored: Sequence[tuple[Example, Verdict]]) -> dict[str, float | int | None]:
    """Return the averages over the five versions with images, and the accuracy of the sixth without.

    ``average_of_versions`` is the mean of the versions' accuracies (macro), ``accuracy_of_versions`` that of
    all their rows (micro); they agree if the versions have equal sizes. Both cover ``versions`` with rows.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for example, verdict in scored:
        if verdict.score is not None:
            scores[str(example.meta["problem_version"])].append(verdict.score)
    found = [scores[version] for version in VERSIONS if scores[version]]
    return {
        "average_of_versions": mean(map(mean, found)) if found else None,
        "accuracy_of_versions": mean(one for version in found for one in version) if found else None,
        "versions": len(found),
        "text_only": mean(scores[TEXT_ONLY]) if scores[TEXT_ONLY] else None,
    }


def read(record: Mapping[str, Any]) -> Response:
    """Read a row of testmini with ``model_answer``, and ``extraction`` after the extraction stage."""
    extraction = record.get("extraction")
    answer = record["model_answer"] if extraction is None else record.get("model_answer")
    return Response(
        _id(record), str(answer or ""), extraction=None if extraction is None else str(extraction)
    )


benchmark = Benchmark(
    name="mathverse",
    source="Zhang et al. 2024, arXiv 2403.14624; github.com/ZrrSkywalker/MathVerse",
    load=load,
    prompt=prompt,
    published=published,
    official=official,
    groups=groups,
    judge=judge,
    judges={"two-stage": judge, "published": judge_as_published, "mm-eureka": judge_as_mm_eureka},
    by_rule=by_rule,
    read=read,
    metrics=metrics,
    title="MathVerse",
    hub=_HUB,
    split="testmini",
)
