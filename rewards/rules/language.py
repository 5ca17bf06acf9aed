"""Rule "language": share of words in the script of the required language."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Literal

from rewards.example import ExampleLike
from rewards.registry import rule
from rewards.rules.common import Section, Share, no_answer, score_with_threshold, section, words
from rewards.verdict import Status, Verdict

MAX_READ = 100_000
Language = Literal[
    "question", "latin", "chinese", "japanese", "korean", "cyrillic", "arabic", "greek", "hebrew"
]
# The scripts of each language, by the first words of its letters' Unicode names.
_SCRIPTS = {
    "latin": {"LATIN"},
    "chinese": {"CJK"},
    "japanese": {"CJK", "HIRAGANA", "KATAKANA"},
    "korean": {"HANGUL"},
    "cyrillic": {"CYRILLIC"},
    "arabic": {"ARABIC"},
    "greek": {"GREEK"},
    "hebrew": {"HEBREW"},
}
# Formulas, code, tags, macros, URLs and names of figures (ABC) have Latin letters in every language.
_FOREIGN = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\(.{0,500}?\\\)|\\\[.{0,500}?\\\]|<[^<>\s]{1,40}>|\\[A-Za-z]+"
    r"|https?://\S+|(?<![A-Za-z])[A-Z]{2,5}(?![A-Za-z])",
    re.DOTALL,
)
_MIN_LATIN = 3


@lru_cache(maxsize=20_000)
def _script(letter: str) -> str | None:
    if not letter.isalpha():
        return None
    return unicodedata.name(letter, "").partition(" ")[0] or None


def scripts(text: str) -> Counter[str]:
    """Return the number of words of ``text`` per script (Unicode's names); each Chinese character is a word.

    Formulas, code, tags, and Latin words of capitals or of one or two letters (points, units) do not count.
    """
    counts: Counter[str] = Counter()
    for word in words(_FOREIGN.sub(" ", text[:MAX_READ])):
        script = _script(word[0])
        if script and not (script == "LATIN" and len(word) < _MIN_LATIN):
            counts[script] += 1
    return counts


def _expected(language: str, question: str) -> set[str]:
    """Return the scripts that count; empty if the question has no words."""
    if language != "question":
        return _SCRIPTS[language]
    found = scripts(question)
    main = {script for script, _ in found.most_common(1)}
    kana = {"HIRAGANA", "KATAKANA"} & set(found)
    return _SCRIPTS["japanese"] if kana and main & _SCRIPTS["japanese"] else main


@rule("language")
def language(
    completion: str,
    example: ExampleLike,
    expected: Language = "question",
    read: Section = "everything",
    threshold: Share | None = None,
) -> Verdict:
    """The share of words in the expected language's script, without formulas, code and tags.

    Args:
        completion: the model's text.
        example: holds the question.
        expected: a script or language, or "question" for the script that most of the question is in.
        read: the section of the completion to read.
        threshold: if given, the score is 1 from there on and 0 below.
    """
    wanted = _expected(expected, getattr(example, "question", ""))
    if not wanted:
        return Verdict(None, Status.UNPARSABLE_GOLD, None, "the question has no words; name a language")
    text = section(completion, read)
    if text is None:
        return no_answer(read)
    found = scripts(text)
    total = sum(found.values())
    if not total:
        return Verdict(1.0, Status.CORRECT, None, "no words, so none of another language")
    share = sum(found[script] for script in wanted) / total
    named = " or ".join("Chinese" if script == "CJK" else script.title() for script in sorted(wanted))
    return score_with_threshold(share, threshold, None, f"{share:.1%} of {total:,} words are {named}")
