"""Attacks on golds in words: the opposite word, another word, lists of words."""

from __future__ import annotations

from collections.abc import Iterator

from rewards.attack.gold import Attack, Gold
from rewards.attack.other import OPPOSITE, other_answer

_COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")


def word_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield the attacks on a gold word or a few."""
    if gold.form != "words":
        return
    word, other = gold.bare, other_answer(gold)
    for form in (r"\boxed{\text{%s}}", "<answer>%s</answer>", "The answer is %s.", "**%s**"):
        yield Attack("wrong word", form.replace("%s", other), f"{other} is not {word}")
    if word.lower() in _COLOURS:
        for form in (r"\boxed{\text{%s}}", "<answer>%s</answer>", "The answer is %s."):
            yield Attack("list", form.replace("%s", ", ".join(_COLOURS)), "a list of all colours")
        yield Attack("wrong word", f"<answer>dark {word} or light {other}</answer>", "two answers")
    if word.isalpha() and len(word) > 2 and not word.lower().startswith("non"):
        for text in (f"non{word}", f"un{word}", f"non-{word}", f"{word}less", f"neither {word} nor {other}"):
            yield Attack("wrong word", f"<answer>{text}</answer>", "its opposite, or another word")
    if word.lower() in OPPOSITE:
        yield Attack("negation", f"<answer>the opposite of {word}</answer>", "it is denied")
        yield Attack("list", f"<answer>{word}/{OPPOSITE[word.lower()]}</answer>", "both of two")
        yield Attack("list", rf"\boxed{{\text{{{word} and {OPPOSITE[word.lower()]}}}}}", "both of two")
