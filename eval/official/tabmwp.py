r"""Official scoring of TabMWP: an answer found by patterns, normalised, and compared as text.

Of a multiple-choice response, the letter at its start or after "the answer is" counts, else the option that
shares most words with it, so that it never abstains. Of another response, the first of eight patterns that
occurs gives its last match: "The answer is …", "The table shows that …", "= …", a number after be, is, are,
was, were, a time, any number. Then currency signs, thousands commas and the unit are removed and fractions
and decimals rounded to three places.

Source: Lu et al. 2022, arXiv 2209.14610; ``run_gpt3_rl/utilities.py`` of github.com/lupantech/PromptPG.
Difference from that code: a letter beyond the options names none and the most similar option is taken; there
it is drawn at random. The benchmark's prompts end with "Answer: The answer is …".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards import Status, Verdict
from rewards.messages import short

_FRACTION = re.compile(r"\$?\\frac\{([\d.,\-]{1,40})\}\{([\d.,]{1,40})\}\$?")
_END_STOP = re.compile(r"(?<![AP]\.M)\.$")
_EQUALS = re.compile(r"(?<=\d)=(?=[-$\d])")
_LETTERS = (
    re.compile(r"^\(([A-Za-z])\)$"),
    re.compile(r"^([A-Za-z])$"),
    re.compile(r"^([A-Za-z]). "),
    re.compile(r"[Th]he answer is ([A-Z])"),
    re.compile(r"^\(([A-Za-z])\) [\s\S]+$"),
    re.compile(r"[Th]he answer is \(([A-Za-z])\) [\s\S]+$"),
)
_VALUES = (
    re.compile(r"[Th]he answer is ([\s\S]+)$"),
    re.compile(r"[Th]he table shows that ([\d$.,/:]+) "),
    re.compile(r" = ([\d$.,/:]+)"),
    re.compile(r"(?<= be| is) ([-\d$.,/:]{0,100}\d+)"),
    re.compile(r"(?<= are| was) ([-\d$.,/:]{0,100}\d+)"),
    re.compile(r"(?<= were) ([-\d$.,/:]{0,100}\d+)"),
    re.compile(r" ([\d$.,/:]{1,100} [AP]\.M\.)"),
    re.compile(r"([-\d$.,/:]{0,100}\d+)"),
)
_NUMBER, _WHOLE = re.compile(r"[-+]?[\d,./]+"), re.compile(r"[-+]?\d+")
_MAX_CHARS = 4_000


def grade(response: str, gold: str, options: Sequence[str] = (), unit: str = "") -> Verdict:
    """Score a response as TabMWP does."""
    answer = extract(response.strip()[-_MAX_CHARS:], options)
    found, wanted = normalise(answer, unit), normalise(gold, unit)
    right = found.lower() == wanted.lower()
    reason = f"{short(found, 60)!r} {'is' if right else 'is not'} {short(wanted, 60)!r}"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason)


def extract(response: str, options: Sequence[str] = ()) -> str:
    """Return the option's text, or the value that the first matching pattern finds; else the response."""
    text = _FRACTION.sub(r"\1/\2", response)
    text = _EQUALS.sub(" = ", _END_STOP.sub("", text)).replace("\u2212", "-")
    if options:
        return _option(text, options)
    for pattern in _VALUES:
        found = pattern.findall(text)
        if found:
            value = found[-1].strip()
            return value[:-1] if value.endswith(".") and ".M." not in value else value
    return text


def _option(text: str, options: Sequence[str]) -> str:
    for pattern in _LETTERS:
        found = pattern.findall(text)
        index = ord(found[0].upper()) - 65 if found else -1
        if 0 <= index < len(options):
            return options[index]
    return max(options, key=lambda option: _similarity(option, text))


def _similarity(option: str, text: str) -> float:
    """Return the share of common words; 2 for the same text, 0 for different single words."""
    if option == text:
        return 2.0
    words, others = option.split(" "), text.split(" ")
    if len(words) == len(others) == 1:
        return 0.0
    return len(set(words) & set(others)) / max(len(words), len(others))


def normalise(text: str, unit: str = "") -> str:
    """Return a number as the benchmark writes it, or the text without the unit."""
    text = re.sub(r"[,./]$", "", re.sub(r"^\$", "", text))
    if not _NUMBER.fullmatch(text):
        return text.replace(unit, "").strip() if unit else text
    plain = text.replace(",", "")
    try:
        if _WHOLE.match(plain) and _WHOLE.fullmatch(plain):
            return str(int(plain))
        if "/" in plain:
            above, below = plain.split("/")[:2]
            value = round(float(above) / float(below), 3)
        else:
            value = round(float(plain), 3)
        return re.sub(r"\.0+$", "", str(value))
    except (ValueError, ZeroDivisionError, OverflowError):
        return text
