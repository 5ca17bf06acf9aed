"""Explanation of a verdict: the extracted answer, the parsed sides, and the step that decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.extract import locate_answer
from rewards.inputs import as_choices, as_completion, as_gold
from rewards.math.bounds import MAX_CHARS, Unreadable
from rewards.math.choices import find_options, gold_letters, letters_in, option_letters
from rewards.math.clean import clean
from rewards.math.decide import decide_cheaply
from rewards.math.read import AnswerItem, ParsedAnswer, read_answer, read_gold
from rewards.math.tree import Node, exact_value
from rewards.verdict import Verdict
from rewards.verify import TIME_LIMIT, verify

_INFIX = {"+": " + ", "*": "·", "/": "/", "^": "^", ":": ":", "cup": " ∪ ", "cap": " ∩ "}


@dataclass(frozen=True)
class Explanation:
    """Explanation of a verdict of the rule "accuracy", as texts for the terminal.

    Attributes:
        verdict: the verdict.
        found: place of the answer in the completion.
        answer: the parsed answer, one text per item; empty if there was none or it was not needed.
        gold: the parsed gold answer, likewise.
        decided_by: the step that decided.
    """

    verdict: Verdict
    found: str
    answer: tuple[str, ...]
    gold: tuple[str, ...]
    decided_by: str


def as_text(node: Node) -> str:
    """Return an expression tree on one line, with brackets around every operation."""
    if node.op == "num" and node.value is not None:
        return str(node.value)
    if node.op == "sym":
        return node.name
    if node.op == "neg":
        return f"-{as_text(node.args[0])}"
    args = [as_text(arg) for arg in node.args]
    if node.op in _INFIX and len(args) > 1:
        return f"({_INFIX[node.op].join(args)})"
    if node.op == "rel":
        signs = node.name.split()
        return args[0] + "".join(f" {sign} {arg}" for sign, arg in zip(signs, args[1:], strict=False))
    if node.op == "bracket" and len(node.name) > 1:
        return f"{node.name[0]}{', '.join(args)}{node.name[-1]}"
    return f"{{{', '.join(args)}}}" if node.op == "set" else f"{node.op}({', '.join(args)})"


def _item_text(item: AnswerItem) -> str:
    if item.tree is None:
        return f"words: {item.text!r}"
    value = exact_value(item.tree)
    kind = {"rel": "relation", "bracket": "tuple or interval", "set": "set", "matrix": "matrix"}.get(
        item.tree.op
    )
    kind = kind or ("number" if value is not None else "expression")
    unit = f", unit {item.unit.name}" if item.unit else ""
    return f"{kind}: {value if value is not None else as_text(item.tree)}{unit}"


def _lines(read: Callable[[str], ParsedAnswer], text: str) -> tuple[str, ...]:
    """Return a text per item; for a gold answer also its alternatives."""
    try:
        parsed = read(text)
    except Unreadable as error:
        return (f"cannot be read: {error}",)
    others = tuple(f"or {_item_text(item)}" for other in parsed.alternatives for item in other.items)
    joined = () if parsed.ordered or len(parsed.items) < 2 else ("in any order",)
    return tuple(_item_text(item) for item in parsed.items) + joined + others


def _options(text: str, choices: Sequence[str]) -> tuple[str, ...]:
    picked = find_options(text, choices)
    return (f"option {option_letters(picked)}",) if picked else ("names no option",)


def _step(answer: str, gold: str) -> str:
    """Return the step of ``rewards.verify`` that decides a free-form comparison."""
    try:
        read_gold(gold)
    except Unreadable:
        return "the gold answer, which nothing can be compared with"
    if len(answer) <= MAX_CHARS and clean(answer) == clean(gold):
        return "the text: both are spelled the same once cleaned"
    try:
        sides = read_answer(answer), read_gold(gold)
        cheap = decide_cheaply(answer, gold)
    except Unreadable:
        return "the answer, which cannot be read"
    if cheap is None:
        return "sympy, in a worker process"
    items = [item for side in sides for item in side.items]
    if any(item.tree is None for item in items):
        return (
            "the words"
            if all(item.tree is None for item in items)
            else "the kinds: words against mathematics"
        )
    if all(item.tree is not None and exact_value(item.tree) is not None for item in items):
        return "exact arithmetic"
    return "structure and values at sample points, without sympy"


def explain(
    completion: Any, gold: Any, *, choices: Any = (), timeout: float | None = TIME_LIMIT
) -> Explanation:
    """Return the verdict of ``verify`` with its explanation. Arguments as for ``verify``."""
    completion, gold, choices = as_completion(completion), as_gold(gold), as_choices(choices)
    verdict = verify(completion, gold, choices=choices, timeout=timeout)
    located = locate_answer(completion)
    if not located:
        return Explanation(verdict, "nowhere", (), _lines(read_gold, gold), "extraction: there is no answer")
    answer, place = located
    if choices and find_options(gold, choices):
        sides = _options(answer, choices), _options(gold, choices)
        return Explanation(verdict, place, *sides, "the options")
    letters = gold_letters(gold)
    if letters and letters_in(answer):
        picked, wanted = (" and ".join(sorted(one)) for one in (letters_in(answer), letters))
        return Explanation(verdict, place, (f"letter {picked}",), (f"letter {wanted}",), "the letters")
    sides = _lines(read_answer, answer), _lines(read_gold, gold)
    return Explanation(verdict, place, *sides, _step(answer, gold))
