"""Words after a number: a unit of measure, a counted noun, or words that change or deny the number."""

from __future__ import annotations

import re

from rewards.math.amounts.spoken import PARTS, SCALES, VALUES
from rewards.math.amounts.unit_text import combined, find_unit, plain_spelling
from rewards.math.amounts.units import Unit

# Words of arithmetic, of comparison, of doubt and of denial. With one of them, a text is more than a number
# and what it counts.
_CHANGING = (
    "plus minus times over divided multiplied by squared cubed factorial root mod modulo through thru "
    "to until till upto point power choose twice half halves halved doubled negative than "
    "least most minimum maximum between or and nor either versus vs if unless except excluding not no "
    "none never neither cannot isn't isnt aint wrong incorrect incorrectly false untrue invalid mistake "
    "mistaken mistakenly error erroneous typo nope nah impossible fake rejected excluded retracted "
    "denied maybe perhaps possible possibly probable probably likely unlikely apparently presumably "
    "supposedly approx approximately approximate about around roughly nearly almost guess guessing "
    "guessed uncertain unsure unknown unclear undetermined ish hopefully tentative tentatively estimate "
    "estimated ballpark doubtful dunno whatever something somewhere instead but rather actually is was "
    "were equals equal though although however think believe suppose assume might could would should "
    "may can"
)
_STOP = frozenset(_CHANGING.split()) | frozenset(VALUES) | frozenset(SCALES) | {"dozen", "dozens"}
_LATER_STOP = _STOP - {"root", "power", "by", "to", "and", "point", "half", "over", "may", "can"}
_FINAL = frozenset(["times", "point"])
_AFTER_FINAL = frozenset(["per", "a", "an", "each", "every", "in", "as"])
_ADVERB = re.compile(r"[a-z]{3,}ly")
_LY_NOUNS_LIST = (
    "family butterfly butterflies dragonfly daily weekly monthly yearly hourly only fly jelly lily "
    "belly ally assembly monopoly anomaly exactly precisely early total totally friendly lovely curly "
    "bully"
)
_LY_NOUNS = frozenset(_LY_NOUNS_LIST.split())
# Words after a unit that add nothing to it: "2 meters tall", "5 cups of flour", "79 years old".
_FILLERS_LIST = (
    "of in from away long longer tall taller wide wider deep deeper high higher thick apart old older "
    "ago later earlier each total altogether for at left remaining more less fewer extra above below "
    "per on further farther faster slower heavier lighter colder warmer across length width height "
    "area volume north south east west up down every a an the with"
)
_FILLERS = frozenset(_FILLERS_LIST.split())
_PHRASE = re.compile(r"(?:[A-Za-z$%°'/.\u2019\s-]|\^[-+]?\d)+")
_MAX_WORDS = 8
_PER = re.compile(r"\s+(?:per|an?|each|every)\s+|\s*/\s*")
_HAN_WORD = re.compile(r"[\u4e00-\u9fff]{1,20}")
_HAN_STOP = re.compile(
    r"[不非没无错误或约至到加减乘除又半负多少几零一二三四五六七八九十百万亿]|以上|以下|左右|大概|可能|分之|倍多"
)


def _changes(words: list[str]) -> bool:
    """Return whether the words are more than a noun: arithmetic, a comparison, a doubt or a denial."""
    for i, word in enumerate(words):
        if word in _FINAL and (i + 1 == len(words) or words[i + 1] in _AFTER_FINAL):
            continue
        if word in (_LATER_STOP if i else _STOP) or word.endswith("n't") or _is_number(word):
            return True
        if _ADVERB.fullmatch(word) and word not in _LY_NOUNS:
            return True
    return words[-1] in ("double", "triple") or (len(words) == 1 and _is_part(words[0]))


def _is_part(word: str) -> bool:
    return word in PARTS or word.removesuffix("s") in PARTS


def _is_number(word: str) -> bool:
    """Return whether a word with hyphens is a number: "twenty-six", "six-sevenths"; not "one-way"."""
    parts = word.split("-")
    return len(parts) > 1 and all(part in VALUES or part in SCALES or _is_part(part) for part in parts)


def _known(text: str) -> Unit | None:
    """Return the unit in one part of a phrase: alone, before a filler, or after an adjective."""
    words = text.split()
    for end in range(len(words), 0, -1):
        if end < len(words) and words[end].casefold().strip(".") not in _FILLERS:
            continue
        unit = find_unit(" ".join(words[:end]))
        if unit:
            return unit
    for start in range(1, min(3, len(words))):
        unit = find_unit(" ".join(words[start:])) if len(words[start]) > 3 else None
        if unit:
            return unit
    return None


def _rate(text: str) -> Unit | None:
    """Return the unit of a rate, such as "people per square mile"; None if nothing in it is measured."""
    parts = [part for part in _PER.split(text) if part.strip()]
    units = [_known(part) for part in parts]
    factors = [(unit, -1 if i else 1) for i, unit in enumerate(units) if unit]
    return combined(text, factors) if factors else None


def read_phrase(text: str) -> Unit | None:
    """Return the unit of measure or counted noun of the words after a number; None if they are neither."""
    text = plain_spelling(text).replace("\u2019", "'").strip(" .()")
    unit = find_unit(text)
    if unit:
        return unit
    words = [word.strip(".'-") for word in text.casefold().split()]
    words = [word for word in words if word]
    if not words or len(words) > _MAX_WORDS or not _PHRASE.fullmatch(text) or _changes(words):
        return None
    if not any(len(word) > 2 for word in words):
        return None
    return _rate(text) or Unit(text)


def read_han(text: str) -> Unit | None:
    """Return the unit or the counter of Chinese words after a number, or None if they change the number."""
    unit = find_unit(text)
    if unit:
        return unit
    return Unit(text) if _HAN_WORD.fullmatch(text) and not _HAN_STOP.search(text) else None
