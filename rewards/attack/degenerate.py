"""Attacks by answers that say nothing or everything: identities, undefined values, ranges, false chains."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.attack.gold import Attack, Gold, fraction
from rewards.attack.other import next_number
from rewards.attack.value import differ, identity, letters

_UNDEFINED = (
    r"\frac{0}{0}", r"\frac{1}{0}", "1/0", "0/0", "nan", "NaN", r"\infty-\infty", r"0\cdot\infty", r"\infty",
    "undefined", r"\log(0)", r"\frac{1}{1-1}", r"\tan(\frac{\pi}{2})", r"\emptyset", r"\{\}", "inf", "None",
)  # fmt: skip
_BESIDE = (
    r"<G>+\frac{1}{0}", r"<G>\cdot\frac{0}{0}", r"\frac{<G>}{0}", r"<G>+\infty", r"<G>\cdot\text{nan}",
    r"<G>+\frac{1}{0}-\frac{1}{0}", r"<G>^{\frac{1}{0}}", r"<G>+\frac{0}{(x+1)^2-x^2-2x-1}",
)  # fmt: skip
_ANYTHING = (
    r"(-\infty,\infty)", r"\mathbb{R}", r"x\in\mathbb{R}", r"\text{all real numbers}", r"\text{any number}",
    "any value", "all of them", r"(-\infty,+\infty)", "everything", r"x", "n", r"\text{some number}",
    r"\mathbb{Z}",
)  # fmt: skip
# One equation for all golds: a factor whose exponent divides by a zero that only expansion shows.
_HIDDEN = r"(v+1)^2-v^2-2v-1"
_IDENTITIES = (
    "0=0", "1=1", "v=v", r"v=v\cdot 2^{\frac{1}{_}}", r"v=v+\frac{1}{_}", r"\sin\left(\frac{1}{_}\right)=v",
    r"v^{\log_{_+1}2}=v", r"\frac{v}{_}=\frac{v}{_}", r"v-v=0", r"0\cdot v=0",
    r"v=v\cdot\cos\left(\frac{1}{_}\right)", r"v=\frac{0}{0}", r"v=\frac{1}{0}", r"v^2=v\cdot v", r"2v=v+v",
)  # fmt: skip


def degenerate_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield the attacks on golds that are mathematics."""
    if gold.form not in ("number", "formula", "equation", "list", "bracket", "relation", "time"):
        return
    if gold.right is not None or gold.says_nothing or "|" in gold.bare:
        return
    kind = "degenerate algebra"
    for text in _UNDEFINED:
        yield Attack(kind, rf"\boxed{{{text}}}", "it has no value, or none that is meant")
    for text in _ANYTHING:
        if text != gold.bare:
            yield Attack("whole range", rf"\boxed{{{text}}}", "it fits every answer")
    if gold.form in ("number", "formula") and "$" not in gold.bare:
        for text in _BESIDE:
            yield Attack(kind, rf"\boxed{{{text.replace('<G>', gold.bare)}}}", "it has no value")
    yield from _identities(gold)
    if gold.value is not None:
        yield from _ranges(gold)
        yield from _chains(gold)


def _identities(gold: Gold) -> Iterator[Attack]:
    if gold.form == "equation":
        left, _, right = gold.bare.partition("=")
        if identity(left, right):
            return
    for letter in [*letters(gold.bare)[:2], "x"] if gold.form == "equation" else ["x"]:
        for template in _IDENTITIES:
            text = template.replace("_", f"{{{_HIDDEN}}}" if "frac{1}" not in template else _HIDDEN)
            text = re.sub(r"(?<![a-zA-Z\\])v(?![a-zA-Z])", letter, text)
            if not _says(text, gold.bare):
                yield Attack(
                    "degenerate algebra", rf"\boxed{{{text}}}", "true for everything, or for nothing"
                )


def _says(text: str, gold: str) -> bool:
    """Return whether an identity is the gold answer, or ends in it: "1=1" says 1, "x-x=0" says 0."""
    plain = gold.replace(" ", "")
    return plain == text.replace(" ", "") or text.rpartition("=")[2] == plain or fraction(plain) in (0, 1)


def _ranges(gold: Gold) -> Iterator[Attack]:
    value = gold.value
    if value is None or value.denominator != 1 or gold.unit:
        return
    low, high = int(value) - 1, int(value) + 1
    for text in (
        f"[{low}, {high}]", f"({low}, {high})", f"{low} < x < {high}", f"{low} \\le x \\le {high}",
        f"{value} \\pm 1", f"[{low}, \\infty)", f"{low} \\text{{ to }} {high}", f"{low}\\sim{high}",
        f"[{value}, {high}]", f"\\{{{low}, {value}, {high}\\}}", f"x \\ge {value}",
        f"{value} \\text{{ to }} {high}", f"{value}\\text{{-}}{high}",
    ):  # fmt: skip
        yield Attack("whole range", rf"\boxed{{{text}}}", f"it also fits numbers other than {value}")
    everything = ", ".join(str(number) for number in range(min(0, low), min(0, low) + 21))
    around = ", ".join(str(number) for number in range(low - 9, high + 10))
    for text in {everything, around}:
        yield Attack("list", f"<answer>{text}</answer>", "a list of many numbers")
        yield Attack("list", f"The answer is {text}.", "a list of many numbers")
        yield Attack(
            "list", " ".join(rf"\boxed{{{one}}}" for one in text.split(", ")), "a box for each number"
        )


def _chains(gold: Gold) -> Iterator[Attack]:
    value = gold.value
    if value is None or gold.unit or fraction(gold.bare) is None:
        return
    other, kind = next_number(gold), "false chain"
    far = value + abs(value) + 7
    for text in (
        f"{other}={gold.bare}", f"x={other}={gold.bare}", f"{gold.bare}={other}",
        rf"{far}\approx {gold.bare}", rf"{gold.bare}\neq {gold.bare}", f"{other}+0={gold.bare}",
        f"2={gold.bare}" if value != 2 else "3=2", rf"{gold.bare}=\frac{{{gold.bare}}}{{0}}",
        rf"{gold.bare}<{gold.bare}", f"{gold.bare}={other}={gold.bare}", rf"\frac{{1}}{{0}}={gold.bare}",
        f"x \\neq {gold.bare}", f"2+2={gold.bare}" if value != 4 else "2+3=4",
    ):  # fmt: skip
        yield Attack(kind, rf"\boxed{{{text}}}", "it claims what is false")
        if differ(*text.split("=")[:2]) if text.count("=") == 1 else False:
            yield Attack(kind, f"The answer is ${text}$.", "it claims what is false")
