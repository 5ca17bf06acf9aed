"""Accuracy with its uncertainty, of one run and of two on the same questions; plain Python, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import comb, sqrt
from statistics import NormalDist, fmean

from mm_cpgd.report.intervals import normal_quantile, wilson_interval_of_share
from mm_cpgd.report.intervals import wilson_interval as wilson_interval
from rewards.verdict import RuleError

Same = Callable[[str, str], bool]


def clustered_interval(
    scores: Mapping[str, Sequence[float]], confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean score with several samples per question.

    Samples of one question are correlated: the variance of the mean is that between questions (Miller 2024,
    arXiv 2411.00640, section 2.2), and Wilson's interval is taken at the effective number of independent
    samples with the same variance (Korn and Graubard 1998).

    Args:
        scores: scores of all samples, by question; 0 … 1.
        confidence: of the interval, between 0 and 1.
    """
    samples = sum(map(len, scores.values()))
    if not samples:
        return 0.0, 1.0
    mean = sum(map(sum, scores.values())) / samples
    # Deviations of a question's sum: correct also if questions have different numbers of samples.
    variance = sum((sum(own) - len(own) * mean) ** 2 for own in scores.values()) / samples**2
    questions = sum(bool(own) for own in scores.values())
    # If all scores are equal the correlation is unknown: each question then counts once.
    spread = mean * (1 - mean)
    independent = spread / variance if variance > 0 else samples if spread > 0 else questions
    return wilson_interval_of_share(
        mean, min(max(independent, questions), samples), normal_quantile(confidence)
    )


def interval_of_means(
    values: Sequence[float], samples: int = 1, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean over questions of a value that was estimated from several samples.

    As ``clustered_interval``: the variance is that between questions, which includes that of the samples.

    Args:
        values: one for each question, such as its estimate of pass@k; 0 … 1.
        samples: samples that a value was estimated from; bounds the effective number of independent ones.
        confidence: of the interval, between 0 and 1.
    """
    return clustered_interval(
        {str(number): [value] * samples for number, value in enumerate(values)}, confidence
    )


def pass_at_k(correct: int, total: int, k: int) -> float:
    """Return the probability that one of ``k`` of ``total`` samples is right: 1 − C(n − c, k) / C(n, k).

    Unbiased; Chen et al. 2021, arXiv 2107.03374, equation 1.

    Raises:
        RuleError: not 0 ≤ ``correct`` ≤ ``total``, or not 1 ≤ ``k`` ≤ ``total``.
    """
    if not 0 <= correct <= total or not 1 <= k <= total:
        raise RuleError(
            f"pass@{k} of {correct} right in {total}: requires 0 ≤ right ≤ total and 1 ≤ k ≤ total"
        )
    return 1 - comb(total - correct, k) / comb(total, k)


def maj_at_k(answers: Sequence[str | None], scores: Sequence[float], same: Same) -> float:
    """Return the score of the answer that most samples agree on (Wang et al. 2022, arXiv 2203.11171).

    Samples without an answer have no vote; if all have none, the score is 0. With a tie, the score is the
    mean over the tied answers, so that the result does not depend on their order.

    Args:
        answers: answer extracted from each sample.
        scores: the samples' scores. All right answers (score 1) are the same, those of different scores not.
        same: whether two answers are equivalent; called only if their texts differ and the result matters.
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
    """Return the votes of each answer; equivalent texts are merged."""
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

    Newcombe 1998, Statistics in Medicine 17:2635, method 10: Wilson's intervals of the two shares,
    combined with their correlation, which is corrected for continuity.

    Args:
        both: questions right in A and in B.
        gained: right in B only.
        lost: right in A only.
        neither: wrong in both.
        confidence: of the interval, between 0 and 1.
    """
    total = both + gained + lost + neither
    if not total:
        return -1.0, 1.0
    b, a = (both + gained) / total, (both + lost) / total
    z = normal_quantile(confidence)
    (b_low, b_high), (a_low, a_high) = (wilson_interval_of_share(share, total, z) for share in (b, a))
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
    """Return McNemar's exact two-sided p: the binomial test that gains and losses are equally likely."""
    changed = gained + lost
    tail = sum(comb(changed, i) for i in range(min(gained, lost) + 1))
    return min(1.0, tail / 2 ** (changed - 1)) if changed else 1.0


def mean_difference(
    differences: Sequence[float], confidence: float = 0.95
) -> tuple[tuple[float, float], float]:
    """Return (interval, two-sided p) of the mean of paired differences, by the normal approximation.

    For differences other than −1, 0 and 1: with several samples per question, or partial scores. One number
    per question. If all are equal, p is 0, or 1 if they are 0.
    """
    z, count = normal_quantile(confidence), len(differences)
    if count < 2:
        return (-1.0, 1.0), 1.0
    mean = fmean(differences)
    error = sqrt(sum((one - mean) ** 2 for one in differences) / (count - 1) / count)
    interval = max(-1.0, mean - z * error), min(1.0, mean + z * error)
    if not error:
        return interval, float(not mean)
    return interval, 2 * (1 - NormalDist().cdf(abs(mean) / error))
