"""Official scoring of MMMU and MMMU-Pro: from a response to an option or a list of values, and to a verdict.

MMMU takes the options named in parentheses, else alone between spaces, else (responses of more than five
words) by their text; of several, the one named last. Open answers are the tails of lines after words such as
"is" or "answer", and the numbers in them; one of them must equal a gold number rounded to two decimals, or
contain a gold text. MMMU-Pro first looks for a single option letter after the last "Answer:".

Source: Yue et al. 2023, arXiv 2311.16502, ``mmmu/utils/eval_utils.py``, and Yue et al. 2024, arXiv
2409.02813, ``mmmu-pro/evaluate.py``, both in github.com/MMMU-Benchmark/MMMU. Differences from that code:

* A response without an option has no answer. There an option is drawn at random, which adds about a quarter
  (a tenth with ten options) of these responses to the right ones and differs from run to run.
* Of an open response, the last 8,000 characters are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from eval.official.verdicts import picked
from rewards import Status, Verdict
from rewards.messages import short

_STRIPPED = ",.!?;:'"
_MIN_WORDS = 5
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_ANSWER = "Answer:"
# The search for numbers takes the square of the length of a run of digits.
_MAX_CHARS = 8_000


def grade(response: str, golds: Sequence[str], options: Sequence[str] = ()) -> Verdict:
    """Score a response as MMMU does; ``golds`` is the gold letter, or all accepted open answers."""
    if options:
        return _picked(pick_option(response, options), golds[0])
    values = open_values(response[-_MAX_CHARS:])
    right = matches_open(values, golds)
    texts = sorted((value for value in values if isinstance(value, str)), key=len)
    shown = short(texts[0] if texts else str(next(iter(values), "")), 60)
    reason = f"{shown!r} {'matches' if right else 'does not match'} {' or '.join(golds)!r}"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, shown, reason)


def grade_pro(response: str, gold: str, options: Sequence[str]) -> Verdict:
    """Score a response as MMMU-Pro does; ``gold`` is the gold letter."""
    return _picked(pick_option_pro(response, options), gold)


def _picked(letter: str | None, gold: str) -> Verdict:
    if letter is None:
        return Verdict(0.0, Status.NO_ANSWER, None, "the response names no option")
    return picked(letter, gold)


def pick_option(response: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that a response names by MMMU's rule, None if it names none."""
    return _pick(response, _by_letter(options), alone=(" {} ",))


def pick_option_pro(response: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that a response names by MMMU-Pro's rule, None if it names none."""
    by_letter = _by_letter(options)
    place = response.rfind(_ANSWER)
    if place >= 0:
        named = [letter for letter in by_letter if letter in response[place + len(_ANSWER) :]]
        if len(named) == 1:
            return named[0]
    return _pick(response, by_letter, alone=("{} ", "{}."))


def _by_letter(options: Sequence[str]) -> dict[str, str]:
    return {chr(65 + index): text for index, text in enumerate(options)}


def _pick(response: str, options: Mapping[str, str], alone: Sequence[str]) -> str | None:
    for character in _STRIPPED:
        response = response.strip(character)
    response = f" {response} "
    for form, place in (("({})", "({})"), *((one, " {} ") for one in alone)):
        named = [letter for letter in options if form.format(letter) in response]
        if named:
            return max(named, key=lambda letter: response.rfind(place.format(letter)))
    lower = response.lower()
    named = [letter for letter, text in options.items() if text.lower() in lower]
    if not named or len(response.split()) <= _MIN_WORDS:
        return None
    return max(named, key=lambda letter: lower.rfind(options[letter].lower()))


def open_values(response: str) -> set[str | float]:
    """Return the texts and numbers that an open response may mean by MMMU's rule."""
    tails = _tails(response)
    found = tails + [number for tail in tails for pattern in _NUMBERS for number in pattern.findall(tail)]
    return {value for text in found for value in normalised(text)}


def _tails(response: str) -> list[str]:
    """Return the part of each line after its last key word, or the whole response if no line has one."""
    lines = response.strip().strip(".").lower().split("\n")
    found = []
    for index, line in enumerate(lines):
        keys = (*_KEYS, "=") if index == len(lines) - 1 else _KEYS
        tail = _shortest([line.split(key)[-1].strip() for key in keys if key in line])
        if tail and tail not in _TRIVIAL:
            found.append(tail)
    return found or ["\n".join(lines)]


def _shortest(tails: Sequence[str]) -> str:
    """Return the first shortest text; an empty one gives way to the next, as in the benchmark's loop."""
    best = ""
    for tail in tails:
        if not best or len(tail) < len(best):
            best = tail
    return best


def normalised(text: str) -> list[str | float]:
    """Return a number rounded to two decimals, or the text in lower case.

    A single character becomes two texts, with a space before and after it.
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def matches_open(values: set[str | float], golds: Sequence[str]) -> bool:
    """Return whether one of the values equals a gold number or contains a gold text."""
    wanted = [value for gold in golds for value in normalised(gold)]
    texts = [value for value in wanted if isinstance(value, str)]
    return any(
        any(text in value for text in texts) if isinstance(value, str) else value in wanted
        for value in values
    )
