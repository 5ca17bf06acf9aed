"""Kinds of gold answers."""

from __future__ import annotations

import pytest

from rewards.gold_kinds import ONLY_AS_WORDS, gold_kind

KINDS = [
    ("4", "whole number"),
    ("-12", "whole number"),
    ("1,234", "whole number"),
    ("0.5", "decimal"),
    ("1/2", "fraction"),
    (r"-\frac{1}{2}", "fraction"),
    (r"2\times10^3", "rational expression"),
    (r"2\sqrt{3}", "number with roots, π or functions"),
    (r"\pi", "number with roots, π or functions"),
    ("x+1", "expression"),
    ("$2x$", "expression"),
    ("x=3", "equation"),
    ("y=2x+1", "equation"),
    ("x>3", "inequality"),
    ("(1, 2)", "point or open interval"),
    ("[1, 2)", "interval or vector"),
    (r"\{1, 2\}", "set"),
    (r"(1,2)\cup(3,4)", "union of intervals or sets"),
    ("1:2", "ratio"),
    ("3:05 p.m.", "time"),
    ("50%", "percentage"),
    ("40 cm", "quantity with unit"),
    ("60°", "quantity with unit"),
    ("9 apples", "number of things"),
    ("3, 4", "list of 2"),
    ("3; 4; 5", "list of 3"),
    ("1; 2; 3; 4; 5", "list of 4 or more"),
    ("x=2 or x=3", "2 values in any order"),
    ("parallel", "words"),
    (r"\text{east}", "words"),
    ("<", "comparison sign"),
    ("B", "option letter"),
    ("(B)", "option letter"),
    ("A, C", "several option letters"),
    ("(D) Alina", "option letter and text"),
    ("B. 12 cm", "option letter and text"),
    ("(not unique)", "unreadable: an open answer"),
]


@pytest.mark.parametrize(("gold", "kind"), KINDS)
def test_the_kind_of_a_gold_answer_is_named(gold: str, kind: str) -> None:
    assert gold_kind(gold) == kind


@pytest.mark.parametrize("gold", ["Figure 3 of them all", r"$$\mathcal{X}\unknown{4}$$"])
def test_a_gold_answer_with_digits_that_is_read_as_words_is_no_words(gold: str) -> None:
    kind = gold_kind(gold)
    assert kind == ONLY_AS_WORDS or kind.startswith("unreadable")


def test_a_gold_answer_that_names_one_of_the_options_is_an_option() -> None:
    assert gold_kind("yes", ("no", "yes")) == "option"
    assert gold_kind("B", ("no", "yes")) == "option"
    assert gold_kind("7", ("no", "yes")) == "whole number"
