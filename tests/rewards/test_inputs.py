"""Types of gold answers, completions and options: converted to texts, or refused with what to pass."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy
import torch

from rewards import RuleError, Status, equivalent, explain, verify, verify_many
from rewards.example import gold_text, option_texts
from rewards.inputs import as_choices, as_completion, as_gold


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("5", "5"),
        (5, "5"),
        (-3, "-3"),
        (0.5, "0.5"),
        (3.0, "3.0"),
        (0.1 + 0.2, "0.3"),
        (1e20, "100000000000000000000"),
        (6.02e40, r"6.02\times10^{40}"),
        (1e-7, "0.0000001"),
        (math.inf, r"\infty"),
        (-math.inf, r"-\infty"),
        (Fraction(3, 4), "3/4"),
        (Fraction(6, 3), "2/1"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+3"), "1000"),
        (np.int64(7), "7"),
        (np.float32(0.1), "0.1"),
        (np.float64(0.25), "0.25"),
        (np.array(7), "7"),
        (np.str_("x+1"), "x+1"),
        (np.array([7]), "7"),
        (torch.tensor(2), "2"),
        (["5"], "5"),
        ((5,), "5"),
    ],
)
def test_a_gold_answer_becomes_a_text(value: Any, text: str) -> None:
    found = as_gold(value)
    assert (found, type(found)) == (text, str)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"gold is None \(NoneType\): the row has no gold answer; leave it out"),
        (math.nan, r"gold is nan \(float\): the row has no gold answer"),
        (Decimal("sNaN"), "the row has no gold answer"),
        (np.float64("nan"), "the row has no gold answer"),
        (True, r"gold is True \(bool\): pass the words of the answer, such as 'yes'"),
        (np.bool_(True), "pass the words of the answer"),
        (b"5", r"gold is b'5' \(bytes\): pass a text: value.decode\(\)"),
        ({"answer": "5", "unit": "cm"}, "pass the entry that holds the answer, of answer, unit"),
        (["2", "3"], r"join them, '2, 3', with ordered=False"),
        ([], "pass one text"),
        ({"2"}, "pass one text"),
        (np.array([1, 2]), "pass one text"),
        (sympy.sqrt(2), r"pass a text: sympy.latex\(value\)"),
        pytest.param(10**5000, "too many digits", id="long"),
        (1 + 2j, "pass a text or a number"),
        (object, "pass a text or a number"),
    ],
)
def test_a_gold_answer_of_another_type_says_what_to_pass(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        verify(r"\boxed{5}", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("5", "5"),
        (5, "5"),
        ([{"role": "user", "content": "?"}, {"role": "assistant", "content": "5"}], "5"),
        ({"role": "assistant", "content": "5"}, "5"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "5"}]}], "5"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "content": "5", "reasoning_content": "2+3"}], "<think>2+3</think>5"),
        ([], ""),
    ],
)
def test_a_completion_becomes_a_text(value: Any, text: str) -> None:
    assert as_completion(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"completion is None \(NoneType\): pass the model's text, '' if there was none"),
        (b"5", r"pass a text: value.decode\(\)"),
        (["5"], "pass one text, or one conversation .* verify_many takes lists"),
        ({"text": "5"}, "pass the model's text, or chat messages"),
        (True, "pass the model's text"),
    ],
)
def test_a_completion_of_another_type_says_what_to_pass(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        verify(value, "5")


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, ()),
        ([], ()),
        (["12 cm", "15 cm"], ("12 cm", "15 cm")),
        ([1, 2], ("1", "2")),
        ((0.5, Fraction(1, 3)), ("0.5", "1/3")),
        (np.array([1, 2]), ("1", "2")),
        ([True, False], ("True", "False")),
        ({"A": "cat", "B": 2}, ("cat", "2")),
    ],
)
def test_options_become_texts(value: Any, texts: tuple[str, ...]) -> None:
    assert as_choices(value) == texts


@pytest.mark.parametrize("value", ["ABCD", 4, {"a", "b"}, {"B": "x", "A": "y"}, {"x": 1}, b"AB", iter("AB")])
def test_options_that_are_no_list_say_what_to_pass(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^choices is .*; options must be a list of texts, such as"):
        verify("B", "B", choices=value)


def test_a_missing_option_is_named_by_its_place() -> None:
    with pytest.raises(TypeError, match=r"choices\[1\] is None"):
        verify("B", "B", choices=["1", None])


def test_numbers_are_compared_as_their_texts() -> None:
    assert equivalent(5, "5")
    assert equivalent("0.3", 0.1 + 0.2)
    assert equivalent(0.1 + 0.2, "0.3")
    assert equivalent(r"\frac{3}{4}", Fraction(3, 4))
    assert not equivalent("e+20", 1e20)
    assert verify(r"\boxed{2}", 2, choices=[1, 2]).status is Status.CORRECT
    assert explain("5", 5).verdict.status is Status.CORRECT


def test_a_refused_row_among_many_is_named_by_its_place() -> None:
    with pytest.raises(TypeError, match=r"golds\[1\] is None"):
        verify_many(["5", "6"], ["5", None])
    with pytest.raises(TypeError, match="completions is one str, not a list"):
        verify_many("56", ["5", "6"])


def test_values_of_a_data_set_are_refused_as_errors_of_the_rule() -> None:
    assert gold_text(np.int64(3), "row 1") == "3"
    assert option_texts([1, 2], "row 1") == ("1", "2")
    with pytest.raises(RuleError, match=r"row 1 is None .* a gold answer must be a text or a number"):
        gold_text(None, "row 1")
    with pytest.raises(RuleError, match="row 1 is 'AB'"):
        option_texts("AB", "row 1")
