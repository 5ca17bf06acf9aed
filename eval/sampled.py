"""Several answers to each question: mean accuracy, pass@k, maj@k."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

from eval.benchmark import ScoredRow
from eval.statistics import maj_at_k, pass_at_k
from rewards import Status
from rewards.equivalence import judge
from rewards.verification import side_by_side


def sampled(rows: Sequence[ScoredRow]) -> dict[str, Any] | None:
    """Return the numbers of the first protocol over all questions that have a score; None with one sample.

    Returns:
        ``k`` samples to a question; ``questions``; ``accuracy``, the mean over questions; ``pass_at_k`` by k
        (1, 2, 4, … and k; an answer is right when its score is 1) and ``maj_at_k``, of all k.
    """
    questions: dict[str, list[ScoredRow]] = defaultdict(list)
    for row in rows:
        if row.verdict.score is not None:
            questions[row.example.id].append(row)
    k = len({row.response.sample for row in rows})
    if k < 2 or not questions:
        return None
    scores = [[row.verdict.score or 0.0 for row in own] for own in questions.values()]
    return {
        "k": k,
        "questions": len(questions),
        "accuracy": fmean(map(fmean, scores)),
        "pass_at_k": {str(n): _mean_pass(scores, n) for n in _powers(k)},
        "maj_at_k": fmean(side_by_side(_majority, questions.values())),
    }


def _powers(k: int) -> list[int]:
    return [1 << i for i in range(k.bit_length()) if 1 << i < k] + [k]


def _mean_pass(scores: Sequence[Sequence[float]], k: int) -> float | None:
    """Over the questions with at least ``k`` scored answers; None if there is none."""
    found = [pass_at_k(sum(one >= 1 for one in own), len(own), k) for own in scores if len(own) >= k]
    return fmean(found) if found else None


def _majority(rows: Sequence[ScoredRow]) -> float:
    same = partial(_same, choices=rows[0].example.choices)
    return maj_at_k([row.verdict.extracted for row in rows], [row.verdict.score or 0.0 for row in rows], same)


def _same(answer: str, other: str, choices: Sequence[str]) -> bool:
    return judge(answer, other, choices).status is Status.CORRECT
