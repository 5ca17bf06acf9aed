"""Attacks on golds of several statements, and on spans, dates and times that look like arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.attack.gold import Attack, Gold

# Names of a unit that another length can be added to.
_LENGTHS = ("cm", "m", "mm")


def structure_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield attacks on golds with a plus-minus, several equations, a span, a date, or a sum of lengths."""
    if gold.right is not None:
        return
    made = {"plus-minus": _one_sign, "assignments": _assignments, "span": _span, "date": _date}.get(gold.form)
    if made:
        yield from made(gold)
    if gold.form == "number":
        yield from _mixed_lengths(gold)
        yield from _joined_digits(gold)


def _one_sign(gold: Gold) -> Iterator[Attack]:
    for sign, why in (("", "only the value with plus"), ("-", "only the value with minus")):
        text = re.sub(r"(?:\\pm(?![a-zA-Z])|±)\s*", sign, gold.bare)
        # Between two terms a plus stays: 1 ± 2 is 1 + 2.
        text = (
            re.sub(r"(?<=[\w})])\s*(?:\\pm(?![a-zA-Z])|±)\s*", sign or "+", gold.bare)
            if _between(gold)
            else text
        )
        yield Attack("partial", rf"\boxed{{{text}}}", why)
        yield Attack("partial", f"The answer is ${text}$.", why)
    for text in (r"\mathbb{R}", r"\text{all real numbers}", "0=0"):
        yield Attack("whole range", rf"\boxed{{{text}}}", "it fits every answer")


def _between(gold: Gold) -> bool:
    return re.search(r"[\w})]\s*(?:\\pm(?![a-zA-Z])|±)", gold.bare) is not None


def _assignments(gold: Gold) -> Iterator[Attack]:
    items = [item.partition("=") for item in gold.items]
    values = [value.strip() for _, _, value in items]
    for item, value in zip(gold.items, values, strict=True):
        yield Attack("partial", rf"\boxed{{{item}}}", "one of several equations")
        yield Attack("partial", f"<answer>{value}</answer>", "one side of one of several equations")
    if len(set(values)) > 1:
        turned = [f"{name.strip()}={value}" for (name, _, _), value in zip(items, values[::-1], strict=True)]
        if len({name.strip() for name, _, _ in items}) == len(items) and turned != list(gold.items):
            yield Attack("partial", rf"\boxed{{{', '.join(turned)}}}", "the values exchanged")
    first = gold.items[0]
    yield Attack("partial", rf"\boxed{{{', '.join([first] * len(items))}}}", "one equation, repeated")
    yield Attack("partial", rf"\boxed{{{', '.join([*gold.items, 'w=1729'])}}}", "an equation too many")


def _span(gold: Gold) -> Iterator[Attack]:
    low, high = (int(item) for item in gold.items)
    for value, why in (
        (low - high, "a difference"),
        (high - low, "a length"),
        (low, "one end"),
        (high, "one end"),
    ):
        yield Attack("span or date", rf"\boxed{{{value}}}", f"{why}, not a span")
        yield Attack("span or date", f"The answer is {value}.", f"{why}, not a span")
    for ends in ((low, high + 1), (low + 1, high), (high, low)):
        yield Attack("span or date", rf"\boxed{{{ends[0]}-{ends[1]}}}", "another span")


def _date(gold: Gold) -> Iterator[Attack]:
    first, second, third = (int(item) for item in gold.items)
    results = {str(first - second - third), f"{first}/{second * third}", str(first), str(third)}
    for text in sorted(results - {gold.bare}):
        yield Attack("span or date", rf"\boxed{{{text}}}", "a number, not a date")
    joint = "/" if "/" in gold.bare else "-"
    parts = gold.bare.split(joint)
    last = f"{(third % 9) + 1:0{len(parts[2])}d}"
    if int(last) != third:
        changed = joint.join([*parts[:2], last])
        yield Attack("span or date", rf"\boxed{{{changed}}}", "another date")


def _mixed_lengths(gold: Gold) -> Iterator[Attack]:
    """Yield sums of two units whose numbers add up to the gold one."""
    unit = gold.unit.strip()
    if gold.value is None or gold.value.denominator != 1 or gold.value < 2 or unit not in ("", *_LENGTHS):
        return
    value = int(gold.value)
    small = unit or "cm"
    for larger, smaller in ((value - 1, 1), (1, value - 1)):
        yield Attack("unit", rf"\boxed{{{larger} km + {smaller} {small}}}", "a sum of two units")
        yield Attack("unit", f"The answer is {larger} km and {smaller} {small}.", "a sum of two units")


def _joined_digits(gold: Gold) -> Iterator[Attack]:
    """Yield operations on the two digits of a number: 2**3 is not 23."""
    if gold.whole is None or not re.fullmatch(r"[1-9]\d", gold.number):
        return
    a, b = int(gold.number[0]), int(gold.number[1])
    for text, value in (
        (f"{a}**{b}", a**b),
        (f"{a}^{b}", a**b),
        (rf"{a}\times {b}", a * b),
        (f"{a}+{b}", a + b),
    ):
        if value != gold.whole:
            yield Attack("joined digits", rf"\boxed{{{text}}}", f"an operation whose value is {value}")
