"""Accuracy with its uncertainty, of one run and of two on the same questions; plain Python, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import comb, sqrt
from statistics import NormalDist, fmean

from rewards.verdict import RuleError

Same = Callable[[str, str], bool]


def wilson_interval(correct: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927), which stays within 0 and 1.

    Args:
        correct: successes, 0 … ``total``; a sum of partial scores makes the interval wider than need be.
        total: trials; with none, nothing is known: (0, 1).
        confidence: of the interval, between 0 and 1.

    Raises:
        RuleError: the counts or the confidence are impossible.
    """
    if not 0 <= correct <= total:
        raise RuleError(f"{correct} correct of {total}: the count must lie between 0 and the total; recount")
    if total == 0:
        _quantile(confidence)
        return 0.0, 1.0
    return _wilson(correct / total, total, confidence)


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise RuleError(f"confidence {confidence:g} must lie between 0 and 1; 0.95 is usual")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _wilson(share: float, total: float, confidence: float) -> tuple[float, float]:
    z = _quantile(confidence)
    weight = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / weight
    half = z / weight * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # Exactly 0 and 1 at the ends, where rounding would leave a hair.
    low = 0.0 if share == 0 else centre - half
    return low, 1.0 if share == 1 else centre + half


def clustered_interval(
    scores: Mapping[str, Sequence[float]], confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean score where questions were answered several times.

    Answers to one question are alike, so they count as fewer than they are: the variance of the mean is that
    between questions (Miller 2024, arXiv 2411.00640, section 2.2), and Wilson's interval is taken at the
    number of independent answers that would have it (Korn and Graubard 1998).

    Args:
        scores: of each question, all of its answers; 0 … 1.
        confidence: of the interval, between 0 and 1.
    """
    answers = sum(map(len, scores.values()))
    if not answers:
        return 0.0, 1.0
    mean = sum(map(sum, scores.values())) / answers
    # Deviations of a question's sum: right also where some have fewer answers than others.
    variance = sum((sum(own) - len(own) * mean) ** 2 for own in scores.values()) / answers**2
    asked = sum(bool(own) for own in scores.values())
    # All right or all wrong says nothing of how alike answers are: then they count once.
    spread = mean * (1 - mean)
    independent = spread / variance if variance > 0 else answers if spread > 0 else asked
    return _wilson(mean, min(max(independent, asked), answers), confidence)


def pass_at_k(correct: int, total: int, k: int) -> float:
    """Return the chance that one of ``k`` answers drawn of ``total`` is right: 1 − C(n − c, k) / C(n, k).

    Unbiased; Chen et al. 2021, arXiv 2107.03374, equation 1.

    Raises:
        RuleError: not 0 ≤ ``correct`` ≤ ``total``, or not 1 ≤ ``k`` ≤ ``total``.
    """
    if not 0 <= correct <= total or not 1 <= k <= total:
        raise RuleError(
            f"pass@{k} of {correct} right in {total}: needs 0 ≤ right ≤ answers and 1 ≤ k ≤ answers"
        )
    return 1 - comb(total - correct, k) / comb(total, k)


def maj_at_k(answers: Sequence[str | None], scores: Sequence[float], same: Same) -> float:
    """Return the score of the answer that most samples agree on (Wang et al. 2022, arXiv 2203.11171).

    Samples without an answer have no vote; if none has one, the score is 0. Of several answers with as many
    votes each is as likely as the others: the mean of their scores, so that no order decides.

    Args:
        answers: extracted from each sample.
        scores: of each sample. All right answers (score 1) are one; those of different scores never are.
        same: whether two answers are; asked only where their texts differ, and where that can decide.
    """
    texts: dict[float, Counter[str]] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            texts.setdefault(score, Counter())[answer] += 1
    right = texts.pop(1.0, Counter()).total()
    if not texts:
        return float(right > 0)
    most = max(own.total() for own in texts.values())
    if most < right or (not right and len(texts) == 1):
        return 1.0 if right else next(iter(texts))
    votes = [(score, count) for score, own in texts.items() for count in _merged(own, same)]
    votes += [(1.0, right)] if right else []
    most = max(count for _, count in votes)
    return fmean([score for score, count in votes if count == most])


def _merged(texts: Mapping[str, int], same: Same) -> list[int]:
    """Votes of each answer, those of other texts that are the same added."""
    merged: list[tuple[str, int]] = []
    for text, count in texts.items():
        place = next((i for i, (other, _) in enumerate(merged) if same(text, other)), None)
        if place is None:
            merged.append((text, count))
        else:
            merged[place] = (merged[place][0], merged[place][1] + count)
    return [count for _, count in merged]


def paired_interval(
    both: int, gained: int, lost: int, neither: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of (share right in B) − (share right in A) over the same questions.

    Newcombe 1998, Statistics in Medicine 17:2635, method 10: Wilson's intervals of the two shares, squared
    and added with their correlation, which is corrected for continuity.

    Args:
        both: questions right in A and in B.
        gained: right in B alone.
        lost: right in A alone.
        neither: wrong in both.
        confidence: of the interval, between 0 and 1.
    """
    total = both + gained + lost + neither
    if not total:
        return -1.0, 1.0
    b, a = (both + gained) / total, (both + lost) / total
    (b_low, b_high), (a_low, a_high) = (_wilson(share, total, confidence) for share in (b, a))
    phi = _correlation(both, gained, lost, neither)
    down, up = (
        sqrt(max(0.0, left * left - 2 * phi * left * right + right * right))
        for left, right in ((b - b_low, a_high - a), (b_high - b, a - a_low))
    )
    return b - a - down, b - a + up


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    total = both + gained + lost + neither
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not product:
        return 0.0
    excess: float = both * neither - gained * lost
    return (max(excess - total / 2, 0.0) if excess > 0 else excess) / sqrt(product)


def mcnemar_p(gained: int, lost: int) -> float:
    """Return McNemar's exact two-sided p: the binomial test that each change of side was a fair coin's."""
    changed = gained + lost
    tail = sum(comb(changed, i) for i in range(min(gained, lost) + 1))
    return min(1.0, tail / 2 ** (changed - 1)) if changed else 1.0


def mean_difference(
    differences: Sequence[float], confidence: float = 0.95
) -> tuple[tuple[float, float], float]:
    """Return (interval, two-sided p) of the mean of paired differences, by the normal approximation.

    For differences that are no mere 0 and 1: of questions that were answered several times, of partial
    scores. One number for each question. All equal, nothing can be said but that: p is 0, or 1 at 0.
    """
    z, count = _quantile(confidence), len(differences)
    if count < 2:
        return (-1.0, 1.0), 1.0
    mean = fmean(differences)
    error = sqrt(sum((one - mean) ** 2 for one in differences) / (count - 1) / count)
    interval = max(-1.0, mean - z * error), min(1.0, mean + z * error)
    if not error:
        return interval, float(not mean)
    return interval, 2 * (1 - NormalDist().cdf(abs(mean) / error))
