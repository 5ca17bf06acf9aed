"""Kinds of answers: by name, how a response is compared with the gold answer, and whose rule that is.

A kind that reads the response gets the stored extraction, else the text after the thinking; one that reads
the answer gets the stored extraction, else what this project extracts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data import Example
from eval.benchmark import Response, verified
from eval.declared import comparisons
from eval.official import (
    dynamath,
    emma,
    megabench,
    mmbench,
    mmmu,
    mmstar,
    olympiadbench,
    phyx,
    tabmwp,
    visulogic,
)
from rewards import Status, Verdict, extract_answer
from rewards.extract import after_thinking

# rule: the benchmark's own, from the response to the verdict; comparison: the benchmark's, of an answer that
# this project extracts; verifier: there is none, the verifier decides; judge: only an LLM scores.
Means = Literal["rule", "comparison", "verifier", "judge"]
Options = Mapping[str, Any]
Score = Callable[[str, Example, Options], Verdict]


@dataclass(frozen=True)
class Kind:
    """One way to compare.

    Attributes:
        score: verdict of a text, the response or the answer, on an example.
        means: whose rule it is.
        reads: what ``score`` gets.
        options: its options with their defaults.
        within: answer in a form that the verifier does not know, None if a response has none.
        reads_nothing: whether it also scores an empty text, as some rows have no score whatever the response.
    """

    score: Score
    means: Means
    reads: Literal["response", "answer"] = "answer"
    options: Options = field(default_factory=dict)
    within: Callable[[str], str | None] = lambda text: None
    reads_nothing: bool = False


def golds(example: Example) -> tuple[str, ...]:
    """Return all accepted gold answers."""
    return tuple(example.meta.get("_golds") or (example.answer,))


def score(kind: str, options: Options, example: Example, response: Response) -> Verdict:
    """Return the verdict of a kind; a response without an answer gets 0 with status no_answer."""
    rule = KINDS[kind]
    if rule.means == "verifier":
        return verified(example, response)
    text = response.extraction
    if text is None:
        read = after_thinking if rule.reads == "response" else extract_answer
        text = read(response.text)
    if not (text or "").strip() and not rule.reads_nothing:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the response")
    return rule.score(text or "", example, {**rule.options, **options})


def _unscored(text: str, example: Example, options: Options) -> Verdict:
    return Verdict(None, Status.NOT_JUDGED, None, "only an LLM scores this benchmark: --protocol judge")


def _never(text: str, example: Example, options: Options) -> Verdict:
    raise AssertionError("the verifier decides")


KINDS: Mapping[str, Kind] = {
    "letter": Kind(lambda text, one, _: comparisons.letter(text, one.answer, one.choices), "comparison"),
    "yes_no": Kind(lambda text, one, _: comparisons.yes_no(text, one.answer), "comparison"),
    "number": Kind(
        lambda text, one, how: comparisons.number(text, one.answer, **how),
        "comparison",
        options={"absolute": 0.0, "relative": 0.0},
    ),
    "relaxed": Kind(
        lambda text, one, how: comparisons.relaxed(text, golds(one), **how),
        "comparison",
        options={"relative": 0.05},
    ),
    "anls": Kind(
        lambda text, one, how: comparisons.anls(text, golds(one), **how),
        "comparison",
        options={"threshold": 0.5},
    ),
    "text": Kind(lambda text, one, _: comparisons.same_text(text, golds(one)), "comparison"),
    "expression": Kind(_never, "verifier"),
    "judged": Kind(_unscored, "judge", "response", reads_nothing=True),
    "tagged_number": Kind(
        lambda text, one, _: comparisons.tagged_number(text, one.answer), "rule", "response"
    ),
    "competition": Kind(
        lambda text, one, how: olympiadbench.grade(text, one.answer, error=how["error"], answer_type=""),
        "comparison",
        "response",
        {"error": 0.01},
    ),
    "dynamath": Kind(
        lambda text, one, _: dynamath.grade(text, one.answer, str(one.meta.get("answer_type"))),
        "rule",
        "response",
        within=dynamath.short_answer,
    ),
    "emma": Kind(lambda text, one, _: emma.grade(text, one.answer, one.choices), "rule", "response"),
    "megabench": Kind(
        lambda text, one, _: megabench.grade(text, one.meta), "rule", "response", reads_nothing=True
    ),
    "mmbench": Kind(lambda text, one, _: mmbench.grade(text, one.answer, one.choices), "rule", "response"),
    "mmmu": Kind(lambda text, one, _: mmmu.grade(text, golds(one), one.choices), "rule", "response"),
    "mmmu_pro": Kind(lambda text, one, _: mmmu.grade_pro(text, one.answer, one.choices), "rule", "response"),
    "mmstar": Kind(lambda text, one, _: mmstar.grade(text, one.answer), "rule", "response"),
    "phyx_choice": Kind(lambda text, one, _: phyx.grade_choice(text, one.answer), "rule", "response"),
    "phyx_open": Kind(lambda text, one, _: phyx.grade_open(text, one.answer), "rule", "response"),
    "tabmwp": Kind(
        lambda text, one, _: tabmwp.grade(text, one.answer, one.choices, str(one.meta.get("unit") or "")),
        "rule",
        "response",
    ),
    "visulogic": Kind(lambda text, one, _: visulogic.grade(text, one.answer), "rule", "response"),
}
