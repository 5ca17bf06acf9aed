"""Options that a text names, by letter, by the option's words or by its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from rewards.extract.letters import Mention, asserted, letters_in, mentions, unwrapped
from rewards.extract.stance import denies, doubts
from rewards.math.bounds import MAX_CHARS, Unreadable
from rewards.math.clean import plain_text
from rewards.math.decide import decide_cheaply

__all__ = ["find_options", "gold_letters", "letters_in", "option_letters"]

_PREFIX = re.compile(r"^\s*[(\[]?([A-Z])\s*[)\].:]\s*")
_SEVERAL_GOLD = re.compile(r"[(\[]?[A-H](?:\s*[,;\s]\s*[A-H])+[)\]]?|[A-H]{3,8}")
_LONE_GOLD = re.compile(r"[(\[]?\s*([A-J])\s*[)\]]?\s*\.?")
_WRONG = re.compile(r"\b(?:wrong|incorrect|false)\W*$|[✗✘❌]", re.IGNORECASE)
_AROUND = " ()[]*\"'`,.:;→–—-"
_JOINERS = re.compile(r"\b(?:and|or|either|both|any|one|of|the|a|an|all|is|are|answer)\b|[\W_]+")
_WORDS = re.compile(r"[^\W\d_\\]{3,}")
_SYMBOLS = re.compile(r"[\d\\^=<>+*/|]")
_YES_NO = frozenset(["yes", "no", "true", "false"])
_SHORT = 80


def _option_texts(choices: Sequence[str]) -> list[str]:
    """Return the options without their prefixes "A." if all of them have one."""
    marks = [_PREFIX.match(choice) for choice in choices]
    if not all(mark and mark.group(1) == chr(65 + i) for i, mark in enumerate(marks)):
        return list(choices)
    texts = [
        choice[mark.end() :].strip() if mark else choice for mark, choice in zip(marks, choices, strict=True)
    ]
    return texts if all(texts) else [chr(65 + i) for i in range(len(choices))]


def _equal_value(text: str, option: str) -> bool:
    try:
        return bool(decide_cheaply(text, option))
    except Unreadable:
        return False


def _is_option(text: str, option: str) -> bool:
    return plain_text(text) == plain_text(option) or _equal_value(text, option)


def _contradicts(beside: str, index: int, options: list[str]) -> bool:
    """Return whether the text beside a letter is another option, or a value that is not the letter's."""
    beside = beside.strip(_AROUND)
    if not beside or len(beside) > _SHORT:
        return False
    texts = [plain_text(option).strip(_AROUND) for option in options]
    plain = plain_text(beside).strip(_AROUND)
    if plain == texts[index]:
        return False
    if plain in texts:
        return True
    if _equal_value(beside, options[index]):
        return False
    if any(_equal_value(beside, option) for i, option in enumerate(options) if i != index):
        return True
    return beside[0].isdigit() and _differs(beside, options[index])


def contradicts_its_letter(text: str, letter: str, option: str) -> bool:
    """Return whether ``text`` gives the letter another value than its option: "A. 15 cm" for "A. 12 cm"."""
    named = [one for one in mentions(unwrapped(text)) if one.letter == letter]
    return any(_contradicts(beside, 0, [option]) for one in named for beside in (one.before, one.after))


def _differs(text: str, option: str) -> bool:
    try:
        return decide_cheaply(text, option) is False
    except Unreadable:
        return False


def _by_letters(text: str, options: list[str]) -> frozenset[int] | None:
    """Return the options that the text's letters name, none if they contradict it; None without letters."""
    lone = letters_in(text)
    named = [_with_own_text(one, options) for one in mentions(unwrapped(text))]
    letters = asserted(named) if named else lone
    if not letters:
        return frozenset() if any(one.stance != "asserted" for one in named) else None
    indices = frozenset(ord(letter) - 65 for letter in letters)
    if max(indices) >= len(options):
        return None
    for one in _restated(named, options):
        if any(
            _contradicts(beside, ord(one.letter) - 65, options)
            for beside in (one.before, one.after, one.tail)
        ):
            return frozenset()
    return indices


def _with_own_text(one: Mention, options: list[str]) -> Mention:
    """Return a mention as asserted if its option's text follows, which may look like a denial: "(B) No"."""
    index = ord(one.letter) - 65
    if (
        one.stance != "denied"
        or index >= len(options)
        or not _is_option(one.after.strip(" :.,*"), options[index])
    ):
        return one
    return replace(one, stance="asserted")


def _restated(named: list[Mention], options: list[str]) -> list[Mention]:
    return [one for one in named if one.stance == "asserted" and ord(one.letter) - 65 < len(options)]


def _denied_by_its_own_text(text: str, options: list[str]) -> frozenset[int] | None:
    """Return the option of "(B) no", where "no" is option B and no denial; else None."""
    match = _PREFIX.match(unwrapped(text))
    index = ord(match.group(1)) - 65 if match else len(options)
    if not match or index >= len(options):
        return None
    rest = unwrapped(text)[match.end() :]
    own = _is_option(rest, options[index]) and not _contradicts(rest, index, options)
    return frozenset([index]) if own else None


def _by_words(plain: str, options: list[str]) -> frozenset[int]:
    """Return the options whose words stand in a sentence that neither denies nor doubts them."""
    words = [plain_text(option) for option in options]
    readable = [
        word in _YES_NO or (_WORDS.search(word) is not None and not _SYMBOLS.search(word)) for word in words
    ]
    found, rest = [], plain
    # Longer options first: "nonlinear function" is not also "linear function".
    for i in sorted(range(len(words)), key=lambda i: -len(words[i])):
        if readable[i] and _opens(words[i], rest):
            found.append(i)
            rest = re.sub(_whole_word(words[i]), " , ", rest) if words[i] not in _YES_NO else rest
    if not found or plain.startswith("{") or plain.endswith("?"):
        return frozenset()
    found += [
        i for i, word in enumerate(words) if len(word) > 1 and i not in found and _stands_in(word, rest)
    ]
    return frozenset(found) if len(found) != 1 or not (denies(plain) or doubts(plain)) else frozenset()


def _opens(word: str, plain: str) -> bool:
    """Return whether an option's words stand in a text; "yes" and "no" only at the start of a clause."""
    if word in _YES_NO:
        start = r"(?:^|[,;.:/→()~*]|\\to|\b(?:and|or|mean|is|wait|but|of|yes|no|true|false)\b)\W*"
        return word in plain and re.search(start + _whole_word(word), plain) is not None
    return _stands_in(word, plain)


def _stands_in(word: str, plain: str) -> bool:
    return word in plain and re.search(_whole_word(word), plain) is not None


def _whole_word(word: str) -> str:
    """Return the pattern of an option's words; "no red cars" is no "no"."""
    more = r"(?!\s+(?!yes\b|no\b|true\b|false\b|and\b|or\b|but\b)[a-z])" if word in _YES_NO else ""
    return (
        rf"(?<![\w/-]){re.escape(word)}(?![\w/-]){more}"
        if word not in _YES_NO
        else rf"(?<![\w-]){word}(?![\w-]){more}"
    )


def _listed(plain: str, options: list[str]) -> frozenset[int]:
    """Return the options of a text that does nothing but list two or more of them, else nothing."""
    found, rest = set(), plain
    for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
        word = plain_text(options[i])
        pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
        if word and word in rest and re.search(pattern, rest):
            found.add(i)
            rest = re.sub(pattern, " ", rest, count=1)
    listed = len(found) > 1 and not _JOINERS.sub("", re.sub(r"\([a-j]\)|\b[a-j][.):]", " ", rest))
    return frozenset(found) if listed else frozenset()


def names_letters(text: str, count: int) -> bool:
    """Return whether a text names letters of ``count`` options, in whatever way."""
    return any(ord(one.letter) - 65 < count for one in mentions(unwrapped(text)))


def find_options(text: str, choices: Sequence[str]) -> frozenset[int]:
    """Return the indices of the options that ``text`` names; empty if it names none, or contradicts itself.

    An option's words take precedence over its letter, as options may be letters themselves. A letter with
    another option's text, or with a value that is not its own, names none.
    """
    return _find_options(text, tuple(choices))


@lru_cache(maxsize=4096)
def _find_options(text: str, choices: tuple[str, ...]) -> frozenset[int]:
    options = _option_texts(choices)
    plain = plain_text(text[:MAX_CHARS])
    same = [i for i, option in enumerate(options) if plain_text(option) == plain]
    if same:
        return frozenset(same[:1])
    listed = _listed(plain, options)
    if listed:
        return listed
    own = _denied_by_its_own_text(text, options)
    if own:
        return own
    lettered = _by_letters(text, options)
    if lettered is not None:
        return lettered
    equal = [i for i, option in enumerate(options) if _equal_value(text, option)]
    return frozenset(equal[:1]) or _by_words(plain, options)


def gold_letters(gold: str) -> frozenset[str]:
    """Return the letters of a gold answer that consists of option letters: "B", "(B)", "A, C, D", "ACD"."""
    text = unwrapped(gold)
    match = _LONE_GOLD.fullmatch(text)
    if match:
        return frozenset(match.group(1))
    return _several(text) if _SEVERAL_GOLD.fullmatch(text) else frozenset()


def _several(text: str) -> frozenset[str]:
    return letters_in(text) or asserted(mentions(text))


def option_letters(indices: frozenset[int]) -> str:
    """Return the options' letters for a message."""
    return " and ".join(chr(65 + i) for i in sorted(indices))
