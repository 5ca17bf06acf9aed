r"""Extraction of the final answer from a free-form completion.

Only text after the thinking and within the model's turn is read. The first of these that is found is the
answer: the last ``<answer>`` tag; the last ``\boxed{…}`` (a run of boxes is one answer), or "the answer is"
after it; the value of "answer" in a JSON object at the end; ``#### 42``; the last "the answer is" or similar
phrase; a closing "Therefore …"; a last line that is nothing but a value; the last formula; the last words in
bold; a text that is one short formula; the text after the last "is" or "=" of the last line; the last number
of a sentence; the whole text if it is one short line.

A sentence is an answer only by what it asserts: "it is not 2", "fewer than 2" and "by Theorem 2" are taken as
they stand and never as 2; "Wait, no, it is 3" replaces what was stated before.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rewards.extract.letters import asserted, mentions, unwrapped
from rewards.extract.marked import EMPTY_BOX, Found, boxed, hashes, in_json, tagged
from rewards.extract.money import escape_money
from rewards.extract.sentences import (
    before_remark,
    closing,
    concluded,
    declined,
    formula,
    last_bold,
    last_formula,
    last_line,
    last_number,
    phrased,
    stated_later,
    whole,
)
from rewards.extract.stance import retraction
from rewards.extract.statement import bare, distil
from rewards.extract.turn import after_thinking, own_turn

__all__ = ["after_thinking", "extract_answer", "locate_answer"]


def _boxed_or_later(text: str) -> Found | None:
    """Return the last box, or a later statement of the answer."""
    box = boxed(text)
    later = stated_later(text, box.end) if box else None
    if later:
        return later
    return Found(distil(box.text), box.end) if box else None


def _in_hashes(text: str) -> Found | None:
    found = hashes(text)
    return Found(distil(found.text), found.end) if found else None


_FINDERS: dict[str, Callable[[str], Found | None]] = {
    "in the last \\boxed{}, or stated after it": _boxed_or_later,
    'in the "answer" of a JSON object': in_json,
    "after ####": _in_hashes,
    'after a phrase such as "the answer is"': phrased,
    "what the conclusion states": concluded,
    "in a last line of its own": last_line,
    "the last sentence, which declines to answer": declined,
    "the last formula": last_formula,
    "the last words in bold": last_bold,
    "the whole text, a short formula": formula,
    'at the end of the last line, after "is" or "="': closing,
    "the last number of the last line": last_number,
    "the whole text, which is short": whole,
}


def _inside(content: str) -> str | None:
    """Return the answer within a tag: its box, what its phrase states, or the content itself."""
    content = EMPTY_BOX.sub("", content).strip().lstrip(":：").strip()
    found = boxed(content) or in_json(content) or hashes(content) or phrased(content)
    return bare(distil(found.text if found else content))


def named_option(text: str) -> Found | None:
    """Return the last of the last three sentences if it asserts an option's letter."""
    sentences = [piece.strip() for piece in _SENTENCE_END.split(text[-600:]) if piece.strip(" *_")]
    for i, sentence in enumerate(reversed(sentences[-3:])):
        about_options = i == 0 or re.search(r"option|answer|choice|choose|select", sentence, re.IGNORECASE)
        if about_options and len(sentence) <= _OPTION_SENTENCE and asserted(mentions(unwrapped(sentence))):
            return Found(sentence, len(text))
    return None


# The stop after an option's letter, "A. 12 cm", ends no sentence.
_SENTENCE_END = re.compile(r"\n|[。！？]|(?<!\b[A-J])[.!?](?=\s)")
_OPTION_SENTENCE = 200
_MAX_LINES = 60
_WEAK = "in a last line of its own"


def _find(text: str, lettered: bool = False) -> tuple[Found, str] | None:
    tag = tagged(text)
    if tag is not None:
        answer = _inside(tag.text)
        return (Found(answer, tag.end), "in the last <answer> tag") if answer else None
    for place, find in _FINDERS.items():
        if lettered and place == _WEAK and (named := named_option(text)):
            return named, "the option that the last sentences name"
        found = find(text)
        answer = bare(found.text) if found else None
        if found and answer:
            return Found(answer, found.end), place
    rest = before_remark(text) if text.count("\n") <= _MAX_LINES else None
    earlier = _find(rest, lettered) if rest else None
    return earlier if earlier and re.search(r"[\d$\\=]|\b[A-J]\b", earlier[0].text) else None


def _amended(text: str, end: int, lettered: bool) -> tuple[str, str] | bool | None:
    """Return what replaces the answer before ``end``, None if that is only denied, False if it stands."""
    taken_back = retraction(text, end)
    if taken_back is None:
        return False
    position, denied = taken_back
    rest = text[position:].strip(" ,.;:!—–-\n")
    found = _find(rest, lettered) if rest else None
    if found:
        return found[0].text, "stated after taking another answer back"
    return None if denied else False


def locate_answer(completion: str, lettered: bool = False) -> tuple[str, str] | None:
    """Return the final answer of a completion and a description of its place, or None if there is none.

    Only the last 20,000 characters after the thinking are read.

    Args:
        completion: the model's complete text.
        lettered: whether the answer is an option's letter; a letter in the last sentences then counts.
    """
    text = escape_money(EMPTY_BOX.sub("", own_turn(completion))).strip()
    found = _find(text, lettered)
    if found is None:
        return None
    amended = _amended(text, found[0].end, lettered)
    if isinstance(amended, bool):
        return found[0].text, found[1]
    return amended


def extract_answer(completion: str, lettered: bool = False) -> str | None:
    """Return the final answer of a completion as its author wrote it, or None if there is none.

    ``lettered`` says that the answer is an option's letter, which then counts in the last sentences, too.
    """
    located = locate_answer(completion, lettered)
    return located[0] if located else None
