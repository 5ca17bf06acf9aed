r"""MathVision's own scoring by rule: from a whole response and a row to a verdict.

A letter that stands alone at the start or the end is the answer; else a number after the last "is"; else
the last box; else what follows "the answer is" and its kin; else the whole response. It is lower-cased and
freed of spaces, units and decoration, and is right if it equals the gold letter or answer, or the gold
option's text (``eval.rules.mathvision_values`` compares two of them).

Source: Wang et al. 2024, arXiv 2402.14804, and the folder ``evaluation`` of github.com/mathllm/MATH-V
(``evaluate.py``, ``utils.py``), whose quirks are kept, as published numbers have them: what follows a box
that has braces of its own, up to the last brace of the response, belongs to the answer, and where no answer
is marked the whole response is compared. Where this differs from that code:

* Numbers are read by this project's parser (``eval.rules.mathvision_prefix`` says which are not).
* What an option such as "x = 5" gives a letter is forgotten with it; there it may count for later rows.
* A gold answer that is no letter of an option is compared as it is; there it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.rules.mathvision_values import equal, number, rounded_members
from rewards import Status, Verdict

_LETTERS = "ABCDE"
_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_BOX = re.compile(r"oxed\{(.*)\}", re.DOTALL)
_INTEGERS = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")
# What is taken out of an answer, in this order, which matters: a pair's first text becomes its second.
_DECORATION = (
    (" ", ""), (r"\,", ""), ("∞", r"\infty"), (r"+\infty", r"\infty"), (r"\\", "\\"), ("\n", ""),
    (r"\text", ""), (r"\mbox", ""), ("bmatrix", "pmatrix"), (r"\left", ""), (r"\right", ""),
    (r"^{\circ}", ""), (r"^\circ", ""), ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""),
    ("{km}", ""), ("km", ""), (r"\!", ""), (r"\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"),
    (r"\left", ""), (r"\right", ""), (r"^{\circ}", ""), (r"^\circ", ""), (r"\$", ""), ("$", ""),
    (r"\%", ""), ("{.", "{0."),
)  # fmt: skip
# In one string an answer may be both: (a) is unwrapped for every letter before {a} is.
_WRAPPED = [(mark.format(letter), letter) for mark in ("({})", "{{{}}}") for letter in _LETTERS.lower()]
_SHORT = 60


def extract_answer(response: str) -> str:
    """Return the answer of a whole response, lower-case and without decoration; empty if nothing is left."""
    answer = _bare(_found(response.strip()))
    for wrapped, letter in _WRAPPED:
        answer = answer.replace(wrapped, letter)
    return answer.rstrip(".").lstrip(":").strip()


def judge(response: str, gold: str, choices: Sequence[str] = ()) -> Verdict:
    """Score a response as MathVision does.

    Args:
        response: the model's whole text.
        gold: the gold letter, or the gold answer of a free-form question.
        choices: the options' texts in order A, B, …; empty for a free-form question.
    """
    answer = extract_answer(response)
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the response")
    if equal(gold, answer):
        return Verdict(1.0, Status.CORRECT, answer, f"{_short(answer)} equals the gold answer {_short(gold)}")
    option = _gold_option(gold, choices)
    if equal(option, answer):
        reason = f"{_short(answer)} equals the text of the gold option {gold}, {_short(option)}"
        return Verdict(1.0, Status.CORRECT, answer, reason)
    if not _comparable(answer, gold, choices):
        reason = f"{_short(answer)} is no number that MathVision's rule reads, and no option's letter or text"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, reason)
    meant = f"{gold}, {_short(option)}" if option else _short(gold)
    return Verdict(0.0, Status.WRONG, answer, f"{_short(answer)} is not equal to the gold answer {meant}")


def _gold_option(gold: str, choices: Sequence[str]) -> str:
    """The gold option's text; empty if there are no options or the gold answer is none of their letters."""
    index = ord(gold) - ord("A") if len(gold) == 1 else -1
    return choices[index] if 0 <= index < len(choices) else ""


def _comparable(answer: str, gold: str, choices: Sequence[str]) -> bool:
    """Whether the rule had something to compare: a number, a tuple, an option, or words where the gold is."""
    if number(answer) is not None or rounded_members(answer) != answer:
        return True
    if choices:
        named = [chr(97 + i) for i in range(len(choices))]
        return answer in named or any(equal(choice, answer) for choice in choices)
    return number(gold.lower()) is None


def _found(text: str) -> str:
    """The part of a response in which the answer is."""
    text = next((letter for letter in _LETTERS if _is_letter(text, letter)), text)
    last = text.split("is ")[-1].rstrip(".")
    if _is_number(last):
        text = last
    if "oxed{" not in text:
        return _phrased(text)
    return r"\boxed{" + text.split("oxed{")[-1] if text.count("oxed{") > 1 else text


def _is_letter(text: str, letter: str) -> bool:
    starts = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
    return text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(starts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _phrased(text: str) -> str:
    """What follows each phrase in turn, lower-case before capital, to the end of its line and sentence."""
    for phrase in _PHRASES:
        for spelling in (phrase, phrase.replace("the", "The")):
            _, said, after = text.rpartition(spelling)
            text = after.strip()
            if said:
                text = text.split("\n")[0].split(". ")[0]
    return text


def _bare(text: str) -> str:
    """Lower-case, out of its box, the last side of an equation, without decoration."""
    text = text.lower().replace("{}", "")
    box = _BOX.search(text)
    text = box[1] if box else text
    closing, opening = text.find("}"), text.find("{")
    if closing >= 0 and (opening < 0 or closing < opening):
        text = text[:closing]
    text = text.split("=")[-1].split(r"\approx")[-1]
    for old, new in _DECORATION:
        text = text.replace(old, new)
    return _fractions(f"0{text}" if text.startswith(".") else text)


def _fractions(text: str) -> str:
    r"""Put a root's argument in braces, and beside a root those of ``\frac``; write 1/2 as a fraction."""
    if "sqrt" in text:
        text = re.sub(r"\\sqrt([^{\\]|\\(?!sqrt))", r"\\sqrt{\1}", text, flags=re.DOTALL)
        text = _braced_fractions(text)
    if text == "0.5":
        return r"\frac{1}{2}"
    return _INTEGERS.sub(r"\\frac{\1}{\2}", text) if _INTEGERS.fullmatch(text) else text


def _braced_fractions(text: str) -> str:
    before, *fractions = text.split(r"\frac")
    if any(len(one) < 2 and not one.startswith("{") for one in fractions):
        return text
    return before + "".join(rf"\frac{_braced(one)}" for one in fractions)


def _braced(arguments: str) -> str:
    if arguments.startswith("{"):
        return arguments
    top, bottom = arguments[0], arguments[1]
    return f"{{{top}}}{bottom if bottom == '{' else f'{{{bottom}}}'}{arguments[2:]}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
