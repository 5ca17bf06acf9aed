"""Rules "edit_similarity", "rouge_l" and "bleu" for free text; of several references the best counts."""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from rewards.example import ExampleLike
from rewards.math.clean import plain_text
from rewards.registry import rule
from rewards.rules.common import (
    Positive,
    Section,
    Share,
    as_texts,
    score_against_gold,
    score_with_threshold,
    words,
)
from rewards.verdict import Verdict

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


def _edit(answer: str, gold: str) -> float:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(answer, gold)


@rule("edit_similarity")
def edit_similarity(
    completion: str,
    example: ExampleLike,
    read: Section = "answer",
    gold: str = "answer",
    normalise: bool = True,
    threshold: Share | None = None,
) -> Verdict:
    """1 minus the Levenshtein distance as a share of the longer text's length.

    Args:
        completion: the model's text.
        example: holds the gold text.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold text or several of them.
        normalise: False also compares case, spacing, articles and end stops.
        threshold: if given, the score is 1 from there on and 0 below.
    """

    def compare(text: str, golds: list[str]) -> Verdict:
        normalised = plain_text if normalise else str
        best = max(_edit(normalised(text), normalised(wanted)) for wanted in golds)
        return score_with_threshold(best, threshold, text, f"{best:.3f} of the text is the gold text's")

    return score_against_gold(completion, example, read, gold, as_texts, compare)


def _rouge_l(answer: list[str], gold: list[str]) -> float:
    """Return the F1 of the longest common subsequence of words (Lin 2004: ROUGE-L, β = 1, no stemming)."""
    from rapidfuzz.distance import LCSseq

    common = LCSseq.similarity(answer, gold)
    return 2 * common / (len(answer) + len(gold)) if common else 0.0


@rule("rouge_l")
def rouge_l(
    completion: str,
    example: ExampleLike,
    read: Section = "text",
    gold: str = "answer",
    threshold: Share | None = None,
) -> Verdict:
    """ROUGE-L: F1 of the longest common subsequence of words with the gold text; words are not stemmed.

    Args:
        completion: the model's text.
        example: holds the gold text.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold text or several of them.
        threshold: if given, the score is 1 from there on and 0 below.
    """

    def compare(text: str, golds: list[str]) -> Verdict:
        best = max(_rouge_l(words(text), words(wanted)) for wanted in golds)
        return score_with_threshold(best, threshold, text, f"ROUGE-L {best:.3f}")

    return score_against_gold(completion, example, read, gold, as_texts, compare)


@lru_cache(maxsize=8)
def _scorer(order: int) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    # Chen and Cherry (2014), first smoothing: an order without a match counts 0.1, else short texts score 0.
    return BLEU(
        tokenize="none", smooth_method="floor", smooth_value=0.1, effective_order=True, max_ngram_order=order
    )


def _bleu(text: str, references: list[str], order: int, *, fixed: bool) -> float:
    """Return the BLEU of words separated by spaces, in [0, 1]."""
    found = _scorer(order).sentence_score(text, references)
    if not fixed:
        # The library computes in floating point: a perfect match may differ slightly from 100.
        return round(found.score / 100, 9)
    if not found.counts[0]:
        return 0.0
    pairs = zip(found.counts, found.totals, strict=True)
    logs = [math.log((count or 0.1) / max(total, 1)) for count, total in pairs]
    return round(found.bp * math.exp(sum(logs) / order), 9)


_MARK_OR_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def _with_punctuation(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, and each punctuation mark as a word."""
    return _MARK_OR_WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@rule("bleu")
def bleu(
    completion: str,
    example: ExampleLike,
    read: Section = "text",
    gold: str = "answer",
    order: Positive = 4,
    orders: Literal["effective", "fixed"] = "effective",
    punctuation: bool = False,
    threshold: Share | None = None,
) -> Verdict:
    """BLEU of the words with the gold text: precision of 1- to 4-grams with a brevity penalty.

    *effective* leaves out orders that the text is too short for: two right words score 1, so that short texts
    are favoured. *fixed* counts each of them as 0.1, and a text without a common word as 0, as NLTK's BLEU
    with its first smoothing does, which SATORI uses (arXiv 2505.19094): there two right words score 0.316.

    Args:
        completion: the model's text.
        example: holds the gold text.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold text or several of them.
        order: the longest n-gram.
        orders: *effective* or *fixed*.
        punctuation: whether each punctuation mark is a word too, as in most tokenizers.
        threshold: if given, the score is 1 from there on and 0 below.
    """

    def compare(text: str, golds: list[str]) -> Verdict:
        split = _with_punctuation if punctuation else words
        references = [" ".join(split(wanted)) for wanted in golds]
        score = _bleu(" ".join(split(text)), references, order, fixed=orders == "fixed")
        return score_with_threshold(score, threshold, text, f"BLEU-{order} {score:.3f}")

    return score_against_gold(completion, example, read, gold, as_texts, compare)
