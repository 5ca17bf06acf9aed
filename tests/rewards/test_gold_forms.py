"""Usual forms of a right answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rewards.gold_forms import right_answers
from rewards.gold_kinds import gold_kind
from tests.rewards.test_gold_kinds import KINDS


def forms(gold: str, choices: Sequence[str] = (), *, spellings: bool = True) -> dict[str, str]:
    found = right_answers(gold, gold_kind(gold, choices), choices, spellings=spellings)
    return {one.form: one.completion for one in found}


@pytest.mark.parametrize(
    ("gold", "form", "text"),
    [
        ("1/4", r"\frac{a}{b}", r"\frac{1}{4}"),
        ("1/4", "as a decimal", "0.25"),
        ("-7/4", "as a decimal", "-1.75"),
        ("7/4", "mixed number", r"1\frac{3}{4}"),
        (r"$\frac{7}{4}$", "a/b", "7/4"),
        ("12500", "thousands separators", "12,500"),
        ("12,500", "without separators", "12500"),
        ("0.75", "as a fraction", r"\frac{3}{4}"),
        ("-0.5", "as a fraction", r"-\frac{1}{2}"),
        ("50%", r"\%", r"50\%"),
        ("60°", "without its unit", "60"),
        ("60°", r"^\circ", r"60^\circ"),
        ("40 cm", "without its unit", "40"),
        ("40 cm", r"unit in \text", r"40\text{ cm}"),
        ("9 apples", "without its unit", "9"),
        ("x = 5", "the value of an equation", "5"),
        ("3:05 p.m.", "24 hours", "15:05"),
        ("12:05 am", "24 hours", "0:05"),
        ("3, 4", "joined by and", r"3 \text{ and } 4"),
        ("3, 4", "joined by semicolons", "3; 4"),
        (r"\{1, 2\}", "set in another order", r"\{2, 1\}"),
        ("x=2 or x=3", "values in another order", r"x=3 \text{ or } x=2"),
        ("(1, 2)", r"\left( \right)", r"\left(1, 2\right)"),
        ("x^2+1", "exponents in braces", "x^{2}+1"),
        ("Parallel", "in lower case", "parallel"),
    ],
)
def test_another_spelling_says_the_same(gold: str, form: str, text: str) -> None:
    assert forms(gold)[form] == rf"\boxed{{{text}}}"


@pytest.mark.parametrize(
    ("gold", "form"),
    [
        ("1/3", "as a decimal"),  # not an exact one
        ("1/0", r"\frac{a}{b}"),
        ("0123456", "thousands separators"),
        ("999", "thousands separators"),
        ("y = 2x+1", "the value of an equation"),
        ("(1, 2), (3, 4)", "joined by and"),  # the commas within the points
        ("3, 4", "values in another order"),  # ordered
        ("40 cm", "The answer is $…$."),  # cm in italics is a product
        ("A sentence. And another", "The answer is …."),
        ("x^23", "exponents in braces"),
    ],
)
def test_a_form_that_is_not_surely_right_is_left_out(gold: str, form: str) -> None:
    assert form not in forms(gold)


def test_an_option_is_stated_by_its_letter_its_text_and_both() -> None:
    found = forms("B", ("A. 12 cm", "B. 15 cm"))
    assert found["the letter in brackets"] == "The answer is (B)."
    assert found["letter (text)"] == "The answer is B (15 cm)."
    assert found["the option's text"] == "<answer>15 cm</answer>"


def test_an_option_with_the_text_of_another_is_stated_by_its_letter_alone() -> None:
    found = forms("B", ("same", "same"))
    assert "the letter" in found
    assert "the option's text" not in found


def test_a_gold_letter_with_its_text_is_stated_by_either() -> None:
    found = forms("(D) Alina")
    assert found["the letter"] == r"\boxed{D}"
    assert found["letter (text)"] == "The answer is D (Alina)."


def test_a_rule_that_compares_texts_gets_the_text_in_several_places_alone() -> None:
    assert set(forms("1/2", spellings=False)) == {
        "<answer>…</answer>", r"\boxed{…}", "The answer is ….", "**…**", "The answer is $…$.",
    }  # fmt: skip


@pytest.mark.parametrize(
    "gold", ["", " ", r"\boxed{4}", "one\ntwo", "{", "\\", "$", "a" * 5000, *dict(KINDS)]
)
def test_every_gold_answer_has_a_form(gold: str) -> None:
    assert all(forms(gold).values())
    assert len(forms(gold)) >= 1
