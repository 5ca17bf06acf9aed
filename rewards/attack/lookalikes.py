"""Attacks by characters that look like others: what a reader sees differs from the gold number."""

from __future__ import annotations

from collections.abc import Iterator

from rewards.attack.gold import Attack, Gold

# Signs without width: what stands at their two sides is seen as one number.
_INVISIBLE = {"a zero-width space": "\u200b", "a word joiner": "\u2060", "a soft hyphen": "\u00ad"}
_MINUS = {"a minus sign": "\u2212", "a full-width minus": "\uff0d", "a small minus": "\ufe63"}
_FULL_WIDTH_FIVE, _ARABIC_FIVE, _BOLD_FIVE = "\uff15", "\u0665", "\U0001d7d3"
_POINTS = {"a full-width stop": "\uff0e", "a one-dot leader": "\u2024", "an Arabic point": "\u066b"}
_BARS = {"a fraction slash": "\u2044", "a division slash": "\u2215", "a full-width slash": "\uff0f"}
_PLACES = (r"\boxed{%s}", "<answer>%s</answer>")


def lookalike_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield numbers that contain the gold one between signs that some readers drop."""
    if gold.whole is None or not gold.number.lstrip("-").isdecimal():
        return
    for text, why in _looking(gold.number, gold.whole):
        for place in _PLACES:
            yield Attack("look-alike", place.replace("%s", text), why)


def _looking(number: str, value: int) -> Iterator[tuple[str, str]]:
    for name, sign in _INVISIBLE.items():
        yield f"{number}{sign}7", f"seen as {number}7: {name} is between"
        if value > 0:
            yield f"7{sign}{number}", f"seen as 7{number}: {name} is between"
    for five in (_FULL_WIDTH_FIVE, _ARABIC_FIVE, _BOLD_FIVE):
        yield f"{number}{five}", f"seen as {number}5 in digits of another script"
    for name, sign in _POINTS.items():
        yield f"{number}{sign}5", f"seen as {number}.5, with {name}"
    if value == 0:
        return
    for name, sign in _BARS.items():
        yield f"{number}{sign}7", f"seen as {number}/7, with {name}"
    yield f"{number}\u00bd", f"seen as {number} and a half"
    if value > 0:
        for name, sign in _MINUS.items():
            yield f"{sign}{number}", f"seen as -{number}, with {name}"
    if value > 1:
        yield f"\u221a{number}", "a root before it"
        yield f"{number}\u00b2", "a superscript 2 behind it"
        yield f"{number}\u2070", "a superscript 0 behind it"
    if value > 9 and number != number[::-1]:
        yield f"\u202e{number}\u202c", f"written from right to left: seen as {number[::-1]}"
