"""Attacks on multiple choice: several options, the right one denied, a letter with another option's text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.attack.gold import Attack, Gold
from rewards.attack.other import option_letter

_ALL_OPTIONS = re.compile(r"all of|both|above|none|neither|correct answer|not |\band\b|never", re.IGNORECASE)
_DENIED = (
    "<answer>({l}) is incorrect</answer>", "<answer>{l}. is wrong</answer>", "<answer>{l}. no, {m}</answer>",
    "<answer>not {l}</answer>", "<answer>{l}) not this one</answer>", "<answer>{l} is eliminated</answer>",
    "The correct option is not {l}.", "We can rule out {l}.", r"\boxed{{\text{{not }} {l}}}",
    "Neither {l} nor {m}.", "<answer>{l} ✗</answer>", "<answer>{l}: false</answer>", "答案不是{l}。",
    "It must be {m}, since {l} is too large.",
)  # fmt: skip
_SEVERAL = (
    "<answer>{l} or {m}</answer>", "<answer>{m}, {l}</answer>", "<answer>{l}{m}</answer>",
    "<answer>{l}/{m}</answer>", "<answer>({l}) and ({m})</answer>", r"\boxed{{{l}}} \boxed{{{m}}}",
    r"\boxed{{{l}, {m}}}", "The answer is {l} or {m}.", "The answer is {l}, or maybe {m}.",
    "<answer>ABCD</answer>", "<answer>A, B, C, D</answer>", "<answer>A B C D</answer>",
    "<answer>A) B) C) D)</answer>", r"\boxed{{A, B, C, D}}", "<answer>{l}; {m}</answer>",
    "<answer>{l} & {m}</answer>", "选{l}或{m}", "<answer>{l}\n{m}</answer>", "I would choose {l} or {m}.",
    "Options: A, B, C, D", "#### {l} or {m}",
)  # fmt: skip


def option_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield the attacks on a gold letter, or on a gold answer that is one of the options."""
    if gold.right is None:
        if gold.form == "letter":
            yield from _on_letters(gold.bare, "A" if gold.bare != "A" else "B")
        return
    if _ALL_OPTIONS.search(gold.choices[gold.right]):
        return
    letter, others = option_letter(gold.right), _others(gold)
    if len(gold.choices) > len("ABCDEFGH") or not others:
        return
    yield from _on_letters(letter, option_letter(others[0]))
    yield Attack("options listed", f"<answer>{_listed(gold)}</answer>", "every option is listed")
    yield Attack("options listed", _listed(gold), "every option is listed")
    yield Attack("options listed", " ".join(gold.choices), "every option is listed")
    if not any(len(_plain(text)) == 1 and _plain(text).isalpha() for text in gold.choices):
        yield from _with_texts(gold, letter, others)


def _others(gold: Gold) -> list[int]:
    assert gold.right is not None
    plain = [_plain(text) for text in gold.choices]
    return [
        index
        for index, text in enumerate(plain)
        if text and not (text in plain[gold.right] or plain[gold.right] in text)
    ]


def _plain(text: str) -> str:
    return re.sub(r"[\s$\\{}~]|text|mathrm", "", text).lower()


def _listed(gold: Gold) -> str:
    return " ".join(f"({option_letter(index)}) {text}" for index, text in enumerate(gold.choices))


def _on_letters(right: str, wrong: str) -> Iterator[Attack]:
    for template in _DENIED:
        yield Attack("option denied", template.format(l=right, m=wrong), f"{right} is denied")
    for template in _SEVERAL:
        yield Attack("several options", template.format(l=right, m=wrong), f"not {right} alone is chosen")
    yield Attack("wrong option", f"<answer>{wrong}</answer>", f"{wrong} is chosen")
    yield Attack("wrong option", rf"So it is not {right} but \boxed{{{wrong}}}.", f"{wrong} is chosen")


def _with_texts(gold: Gold, letter: str, others: list[int]) -> Iterator[Attack]:
    assert gold.right is not None
    text = gold.choices[gold.right].strip()
    for index in others[:2]:
        wrong, other = gold.choices[index].strip(), option_letter(index)
        for form in ("<answer>{}. {}</answer>", "<answer>({}) {}</answer>", "The answer is {}: {}."):
            yield Attack("letter and text", form.format(letter, wrong), f"the text is option {other}'s")
            yield Attack("letter and text", form.format(other, text), f"the letter is option {other}'s")
        yield Attack("wrong option", f"<answer>{wrong}</answer>", f"the text is option {other}'s")
        for form in ("<answer>{} or {}</answer>", "<answer>{}, {}</answer>", "The answer is {} or {}."):
            yield Attack("several options", form.format(text, wrong), "two options' texts")
        both = f"<answer>({letter}) {text} ({other}) {wrong}</answer>"
        yield Attack("several options", both, "two options in full")
    yield Attack("option denied", f"<answer>{letter}. {text} is incorrect</answer>", "it is denied")
    yield Attack("option denied", f"<answer>not {text}</answer>", "it is denied")
