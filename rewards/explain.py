"""Why a completion got its verdict: what was extracted, how both sides were read, which step decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewards.extract import locate_answer
from rewards.math.bounds import MAX_CHARS, Unreadable
from rewards.math.choices import chosen, gold_letters, letters_in, named
from rewards.math.clean import clean
from rewards.math.decide import decide_cheaply
from rewards.math.read import Part, Reading, read_answer, read_gold
from rewards.math.tree import Node, exact
from rewards.verdict import Verdict
from rewards.verify import TIME_LIMIT, verify

_INFIX = {"+": " + ", "*": "·", "/": "/", "^": "^", ":": ":", "cup": " ∪ ", "cap": " ∩ "}


@dataclass(frozen=True)
class Explanation:
    """How a verdict of the rule "accuracy" came about; texts for a person.

    Attributes:
        verdict: the verdict itself.
        found: where in the completion the answer stood.
        answer: how the answer was read, part by part; empty where it was not needed or there was none.
        gold: how the gold answer was read, likewise.
        decided_by: the step that settled it.
    """

    verdict: Verdict
    found: str
    answer: tuple[str, ...]
    gold: tuple[str, ...]
    decided_by: str


def shown(node: Node) -> str:
    """An expression tree as one line, every operation in brackets of its own."""
    if node.op == "num" and node.value is not None:
        return str(node.value)
    if node.op == "sym":
        return node.name
    if node.op == "neg":
        return f"-{shown(node.args[0])}"
    args = [shown(arg) for arg in node.args]
    if node.op in _INFIX and len(args) > 1:
        return f"({_INFIX[node.op].join(args)})"
    if node.op == "rel":
        signs = node.name.split()
        return args[0] + "".join(f" {sign} {arg}" for sign, arg in zip(signs, args[1:], strict=False))
    if node.op == "bracket" and len(node.name) > 1:
        return f"{node.name[0]}{', '.join(args)}{node.name[-1]}"
    return f"{{{', '.join(args)}}}" if node.op == "set" else f"{node.op}({', '.join(args)})"


def _part(part: Part) -> str:
    if part.tree is None:
        return f"words: {part.text!r}"
    value = exact(part.tree)
    kind = {"rel": "relation", "bracket": "tuple or interval", "set": "set", "matrix": "matrix"}.get(
        part.tree.op
    )
    kind = kind or ("number" if value is not None else "expression")
    unit = f", unit {part.unit.name}" if part.unit else ""
    return f"{kind}: {value if value is not None else shown(part.tree)}{unit}"


def _lines(read: Callable[[str], Reading], text: str) -> tuple[str, ...]:
    """Each part of a reading; for a gold answer, its alternatives after it."""
    try:
        reading = read(text)
    except Unreadable as error:
        return (f"cannot be read: {error}",)
    others = tuple(f"or {_part(part)}" for other in reading.alternatives for part in other.parts)
    joined = () if reading.ordered or len(reading.parts) < 2 else ("in any order",)
    return tuple(_part(part) for part in reading.parts) + joined + others


def _options(text: str, choices: Sequence[str]) -> tuple[str, ...]:
    picked = chosen(text, choices)
    return (f"option {named(picked)}",) if picked else ("names no option",)


def _step(answer: str, gold: str) -> str:
    """The step of ``rewards.verify`` that settles a free-form comparison."""
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
    parts = [part for side in sides for part in side.parts]
    if any(part.tree is None for part in parts):
        return (
            "the words"
            if all(part.tree is None for part in parts)
            else "the kinds: words against mathematics"
        )
    if all(part.tree is not None and exact(part.tree) is not None for part in parts):
        return "exact arithmetic"
    return "structure and values at sample points, without sympy"


def explain(
    completion: str, gold: str, *, choices: Sequence[str] = (), timeout: float | None = TIME_LIMIT
) -> Explanation:
    """Return the verdict of ``verify`` with how it came about. Arguments as for ``verify``."""
    verdict = verify(completion, gold, choices=choices, timeout=timeout)
    located = locate_answer(completion)
    if not located:
        return Explanation(verdict, "nowhere", (), _lines(read_gold, gold), "extraction: there is no answer")
    answer, place = located
    if choices and chosen(gold, choices):
        sides = _options(answer, choices), _options(gold, choices)
        return Explanation(verdict, place, *sides, "the options")
    letters = gold_letters(gold)
    if letters and letters_in(answer):
        picked, wanted = (" and ".join(sorted(one)) for one in (letters_in(answer), letters))
        return Explanation(verdict, place, (f"letter {picked}",), (f"letter {wanted}",), "the letters")
    sides = _lines(read_answer, answer), _lines(read_gold, gold)
    return Explanation(verdict, place, *sides, _step(answer, gold))
