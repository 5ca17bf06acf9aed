r"""Official scoring of MathVision: from a complete response and a row to a verdict.

The benchmark's scorer parses numbers by the grammar of latex2sympy2 (1.9). It parses the longest prefix and
ignores the rest: ``45.``, ``5 triangles`` (``tr`` is a function there) and ``\frac{1}{8}}\mathrm{~m}^{2}``,
the result of a greedy search for a box, have a value. Letters are unknowns, so ``e``, ``5cm`` and ``\ln 2``,
whose base is the letter e, have none. ``1\frac{1}{2}`` is a product, ``1/2\pi`` is 1/(2π), ``3:2`` a
quotient, ``1,000`` a thousand. Degrees, Unicode (``√``, ``π``, ``×``), a bare ``%``, absolute values and
``\frac12`` are not parsed.

Not reproduced, because answers do not need it: inequalities (1 or 0 there), functions of a product without
brackets, sums, integrals, matrices, ``\max``, ``\gcd``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from rewards import Status, Verdict
from rewards.math.bounds import Unreadable
from rewards.math.numeric import evaluate
from rewards.math.parser import parse
from rewards.math.tree import Node, exact_value, walk
from rewards.math.tree import number as leaf
from rewards.messages import short

# Function names of the scorer's grammar; parsing stops before them.
_WORDS = "tr|rows|cols|diag|norm|eye|zeros|ones|rank|gcd|lcm|floor|ceil|svd|eig|orth|pmatrix|matrix"
_TOKEN = re.compile(
    r"\s*(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d*\.\d+|\d+)(?P<percent>\\%)?"
    rf"|\s*(?P<other>\\[a-z]+|\\.|{_WORDS}|\S)",
    re.DOTALL,
)
_SPACING = re.compile(r"\\displaystyle|\\q?quad|\\,|[~$']")
_DIVISIONS = frozenset(["/", ":", r"\div"])
_OPERATORS = _DIVISIONS | {"+", "-", "*", r"\cdot", r"\times"}
_NAMES = "frac sqrt pi sin cos tan arcsin arccos arctan sinh cosh tanh log binom lfloor lceil left"
_KNOWN = _OPERATORS | {"^", "!", "e", "_", *("\\" + name for name in _NAMES.split())}
_CLOSERS = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_ARROWS = r"\to \rightarrow \longrightarrow"
_STRAY = r". _ & \\ \} \right \choose \rgroup \rbrack \rbrace \rvert"
_STOPS = frozenset([*_CLOSERS.values(), *_WORDS.split("|"), *_ARROWS.split(), *_STRAY.split()])
# "x = 5" assigns the unknown its value there, and evaluates to it.
_ASSIGNED = re.compile(r"\s*[a-df-z]\s*=(?!=)")
# Required next token by the preceding one: a fraction's arguments are in braces.
_WANTED = {r"\frac": "{", r"\binom": "{", "numerator": "{", r"\sqrt": "{["}
_KINDS = {r"\frac": "numerator", r"\binom": "numerator", "_": "base"}


class _Prefix:
    """Parser of the prefix that the scorer would parse.

    Attributes:
        pieces: parsed tokens, rewritten for this project's parser.
        before: the last token or its kind: ``number``, ``value`` (of a closed group), ``base``, …
        groups: open groups, each with its closing token and kind.
        divided: for the whole and for each open group, whether a divisor is open, which includes all
            following factors without a multiplication sign.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.before = ""
        self.groups: list[tuple[str, str]] = []
        self.divided = [False]

    def stops_at(self, token: str) -> bool:
        return token in _STOPS and not self.groups and self.before != r"\log"

    def take(self, token: str) -> None:
        """Parse one token. Raises ``Unreadable`` if the scorer's parser fails."""
        if self.before in _WANTED and token not in _WANTED[self.before]:
            raise Unreadable(f"{token!r} in place of an opening brace")
        if token in _CLOSERS:
            self._open(token)
        elif token in _CLOSERS.values():
            self._close(token)
        elif token not in _KNOWN:
            raise Unreadable(f"{token!r} is not in the scorer's grammar")
        elif token in _OPERATORS and self.before and self.before not in _OPERATORS:
            self._operate(token)
        else:
            if token == r"\frac" and self.before in ("number", "value"):
                self.pieces.append(r"\cdot ")
            self._put("" if token == r"\left" else token, self.before if token == r"\left" else token)

    def take_number(self, digits: str, percent: bool) -> None:
        if self.before in _WANTED:
            raise Unreadable(f"{digits!r} in place of an opening brace")
        if self.before in ("number", "value", "!", r"\pi"):
            self.pieces.append(r"\cdot ")
        spelled = digits.replace(",", "")
        self._put(f"({spelled}/100)" if percent else spelled, "base" if self.before == "_" else "number")

    def end(self) -> str:
        self._end_divisor()
        return " ".join(self.pieces)

    def _put(self, piece: str, kind: str) -> None:
        self.pieces.append(piece)
        self.before = kind

    def _open(self, token: str) -> None:
        is_degree = (self.before, token) == (r"\sqrt", "[")
        self.groups.append((_CLOSERS[token], r"\sqrt" if is_degree else _KINDS.get(self.before, "value")))
        self.divided.append(False)
        self._put(token, token)

    def _close(self, token: str) -> None:
        closer, kind = self.groups.pop()
        if token != closer:
            raise Unreadable(f"{token!r} closes a group that ends in {closer!r}")
        self._end_divisor()
        self.divided.pop()
        self._put(token, kind)

    def _operate(self, token: str) -> None:
        self._end_divisor()
        self.divided[-1] = token in _DIVISIONS
        self._put("/ (" if self.divided[-1] else token, token)

    def _end_divisor(self) -> None:
        if self.divided[-1]:
            self.pieces.append(")")
        self.divided[-1] = False


def readable(text: str) -> str:
    """Return the prefix of a lower-case text that the scorer parses. Raises ``Unreadable`` if it fails."""
    # Spaces at the end would take the tokens' expression quadratic time.
    text = _SPACING.sub(" ", re.sub(r"\\[dt]frac", r"\\frac", text)).rstrip()
    assigned = _ASSIGNED.match(text)
    text = text[assigned.end() :] if assigned else text
    prefix = _Prefix()
    for match in _TOKEN.finditer(text):
        token = match["other"]
        if token is None:
            prefix.take_number(match["number"], bool(match["percent"]))
        elif prefix.stops_at(token):
            break
        elif token == "e" and text[match.end() : match.end() + 1] != "^":
            raise Unreadable("e without an exponent is an unknown")
        elif token != r"\right":
            prefix.take(token)
    return prefix.end()


_WHOLE = frozenset(["num", "+", "*", "neg", "^", "!", "binom", "floor", "ceil"])
_FUNCTIONS = "sin cos tan arcsin arccos arctan sinh cosh tanh"
_NUMERIC = _WHOLE | {"/", "root", "log", "sym", *_FUNCTIONS.split()}


@lru_cache(maxsize=4096)
def number(text: str) -> int | float | None:
    """Return the number of a lower-case text, rounded to 2 decimals; None if it has none."""
    try:
        return _rounded(parse(readable(text)))
    except (Unreadable, ArithmeticError, ValueError):
        return None


def _rounded(tree: Node) -> int | float | None:
    """Round as Python does; integers that no division or function produced stay integers."""
    nodes = list(walk(tree))
    if any(node.op not in _NUMERIC or node.name not in ("", "pi", "e") for node in nodes):
        return None
    value = exact_value(tree)
    if value is not None:
        whole = value.denominator == 1 and all(node.op in _WHOLE for node in nodes)
        return int(value) if whole else round(float(value), 2)
    found = evaluate(_folded(tree), {})
    return round(found.z.real, 2) if found is not None and not found.z.imag else None


def _folded(node: Node) -> Node:
    """Replace exact subtrees by numbers, because floating-point evaluation has no factorials."""
    value = exact_value(node)
    if value is not None:
        return leaf(value)
    return Node(node.op, tuple(_folded(arg) for arg in node.args), name=node.name)


def rounded_members(text: str) -> str:
    r"""Return a tuple ``(…)`` or list ``[…]`` with each member rounded; any other text unchanged.

    Members with ``\infty``, and ``a`` and ``-a``, are kept; one without a value leaves the text unchanged.
    """
    members = text[1:-1].split(",")
    if len(members) < 2 or text[:1] + text[-1:] not in ("()", "[]"):
        return text
    rounded = [_member(member) for member in members]
    kept = [member for member in rounded if member is not None]
    return f"{text[0]}{','.join(kept)}{text[-1]}" if len(kept) == len(members) else text


def _member(text: str) -> str | None:
    if "infty" in text or text in ("a", "-a"):
        return text
    value = number(text)
    return None if value is None else str(value)


def equal(first: str, second: str) -> bool:
    """Return whether the scorer finds two answers equal; an empty one equals nothing."""
    first, second = first.lower(), second.lower()
    if not first.replace(" ", "") or not second.replace(" ", ""):
        return False
    if first.strip() == second.strip() or rounded_members(first) == rounded_members(second):
        return True
    value = number(first)
    return value is not None and value == number(second)


_LETTERS = "ABCDE"
_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_BOX = re.compile(r"oxed\{(.*)\}", re.DOTALL)
_INTEGERS = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")
# Replacements in an answer; their order matters.
_DECORATION = (
    (" ", ""), (r"\,", ""), ("∞", r"\infty"), (r"+\infty", r"\infty"), (r"\\", "\\"), ("\n", ""),
    (r"\text", ""), (r"\mbox", ""), ("bmatrix", "pmatrix"), (r"\left", ""), (r"\right", ""),
    (r"^{\circ}", ""), (r"^\circ", ""), ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""),
    ("{km}", ""), ("km", ""), (r"\!", ""), (r"\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"),
    (r"\left", ""), (r"\right", ""), (r"^{\circ}", ""), (r"^\circ", ""), (r"\$", ""), ("$", ""),
    (r"\%", ""), ("{.", "{0."),
)  # fmt: skip
# Order: (a) is unwrapped for every letter before {a} is, because an answer may contain both.
_WRAPPED = [(mark.format(letter), letter) for mark in ("({})", "{{{}}}") for letter in _LETTERS.lower()]


def extract_answer(response: str) -> str:
    """Return the answer of a complete response, lower-case, without decoration; empty if nothing is left."""
    answer = _bare(_found(response.strip()))
    for wrapped, letter in _WRAPPED:
        answer = answer.replace(wrapped, letter)
    return answer.rstrip(".").lstrip(":").strip()


def grade(response: str, gold: str, choices: Sequence[str] = ()) -> Verdict:
    """Score a response as MathVision does.

    Args:
        response: complete text of the model.
        gold: the gold letter, or the gold answer of a free-form question.
        choices: the options' texts in order A, B, …; empty for a free-form question.
    """
    answer = extract_answer(response)
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the response")
    if equal(gold, answer):
        return Verdict(
            1.0, Status.CORRECT, answer, f"{short(answer, 60)} equals the gold answer {short(gold, 60)}"
        )
    option = _gold_option(gold, choices)
    if equal(option, answer):
        reason = f"{short(answer, 60)} equals the text of the gold option {gold}, {short(option, 60)}"
        return Verdict(1.0, Status.CORRECT, answer, reason)
    if not _comparable(answer, gold, choices):
        reason = f"{short(answer, 60)} is not a number that MathVision parses, nor an option's letter or text"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, reason)
    meant = f"{gold}, {short(option, 60)}" if option else short(gold, 60)
    return Verdict(0.0, Status.WRONG, answer, f"{short(answer, 60)} is not equal to the gold answer {meant}")


def _gold_option(gold: str, choices: Sequence[str]) -> str:
    """Return the gold option's text; empty if the gold answer is not the letter of an option."""
    index = ord(gold) - ord("A") if len(gold) == 1 else -1
    return choices[index] if 0 <= index < len(choices) else ""


def _comparable(answer: str, gold: str, choices: Sequence[str]) -> bool:
    """Return whether the answer is comparable: a number, a tuple, an option, or text like the gold answer."""
    if number(answer) is not None or rounded_members(answer) != answer:
        return True
    if choices:
        named = [chr(97 + i) for i in range(len(choices))]
        return answer in named or any(equal(choice, answer) for choice in choices)
    return number(gold.lower()) is None


def _found(text: str) -> str:
    """Return the part of a response that contains the answer."""
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
    """Return what follows each phrase, lower case before capitalised, to the end of its line and sentence."""
    for phrase in _PHRASES:
        for spelling in (phrase, phrase.replace("the", "The")):
            _, found, after = text.rpartition(spelling)
            text = after.strip()
            if found:
                text = text.split("\n")[0].split(". ")[0]
    return text


def _bare(text: str) -> str:
    """Return the lower-case answer out of its box, the last side of an equation, without decoration."""
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
