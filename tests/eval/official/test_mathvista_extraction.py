r"""Extraction of MathVista's answers by rule."""

import pytest

from eval.official.mathvista_extraction import extract_by_rule

LENGTHS = ("3 m", "5 m", "8 m", "12 m")
YES_NO = ("Yes", "No")


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{\text{C}}",
        r"\boxed{\mathrm{C}}",
        r"\boxed{c}",
        r"\boxed{(C)}",
        r"\boxed{\text{(C) } 8\text{ m}}",
        "C.",
        "(c)",
        "**C**",
        "The answer is C, 8 m.",
        r"\boxed{8\text{ m}}",
        "<answer>C</answer>",
        "So it is option (C).",
    ],
)
def test_an_option_is_named_by_letter_or_value_in_any_dress(text):
    assert extract_by_rule(text, "text", LENGTHS) == "8 m"


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("No, the number of brown buses is not less than the number of vans.", "No"),
        ("yes. There are more.", "Yes"),
        ("The question does not provide enough information to answer.", None),
        ("", None),
    ],
)
def test_yes_or_no_at_the_start_is_the_option_and_declining_is_none(text, option):
    assert extract_by_rule(text, "text", YES_NO) == option


def test_the_last_sentence_may_name_the_option_in_words():
    text = "The food web loses its prey. This would lead to a decrease in the dragonfly population."
    assert extract_by_rule(text, "text", ("remains the same", "increase", "decrease")) == "decrease"


def test_two_options_are_none_of_them():
    assert extract_by_rule(r"\boxed{A, C}", "text", LENGTHS) == "A, C"


def test_what_names_no_option_is_left_to_the_comparison():
    assert extract_by_rule("The answer is 63°.", "text", ("36°", "44°")) == "63°"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"\boxed{12\text{ cm}}", "12"),
        (r"\boxed{12^\circ}", "12"),
        (r"\boxed{1,200}", "1200"),
        (r"\boxed{1{,}200}", "1200"),
        (r"\boxed{\frac{24}{2}}", "12"),
        (r"\boxed{\$1,200}", "1200"),
        ("The perimeter of the square is 4 x 4 = 16 meters.", "16"),
        ("There are 3 dots in each group.", "3"),
        ("There are two models that achieve more.", "2"),
        (r"\boxed{-7}", "-7"),
        (r"\boxed{12\%}", "12"),
    ],
)
def test_a_number_is_freed_of_unit_separator_and_calculation(text, number):
    assert extract_by_rule(text, "integer") == number


@pytest.mark.parametrize(
    ("text", "number"), [(r"\boxed{\frac{1}{2}}", "0.5"), (r"\boxed{0.375\text{ m}}", "0.375")]
)
def test_a_decimal_may_be_a_fraction(text, number):
    assert extract_by_rule(text, "float") == number


def test_an_irrational_number_is_a_decimal():
    assert float(extract_by_rule(r"\boxed{\sqrt{2}}", "float")) == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    "text", [r"\boxed{[2007, 2008]}", r"\boxed{[2007,2008]}", r"\boxed{(2007, 2008)}", r"\boxed{2007, 2008}"]
)
def test_a_list_is_written_as_python_does(text):
    assert extract_by_rule(text, "list") == "[2007, 2008]"


@pytest.mark.parametrize("text", [r"\boxed{between 3 and 5}", r"\boxed{x+1}", r"\boxed{3 or 4}"])
def test_what_is_no_number_stays_as_it_is(text):
    answer = extract_by_rule(text, "integer")
    with pytest.raises(ValueError, match="could not convert"):
        float(answer)


def test_without_a_stated_answer_there_is_none():
    assert (
        extract_by_rule("Let us look at the picture. It has blue bars, all of one width.", "integer") is None
    )
