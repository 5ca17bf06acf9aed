"""Official scoring of MathVista: from an extraction to a prediction and a verdict."""

import pytest

from eval.official.mathvista import grade, predict, quick_extraction
from rewards import Status

ANIMALS = ("goat", "horse", "hen")


@pytest.mark.parametrize(
    ("extraction", "option"),
    [
        ("B", "horse"),
        ("(b)", "horse"),
        ("(C) goat", "hen"),
        ("It is (A), not (B)", "goat"),
        (" hen ", "hen"),
        ("b", "hen"),
        ("D", "hen"),
        ("horses", "horse"),
        ("the house", "horse"),
        ("", "hen"),
        ("(z)", "hen"),
        ("no idea at all", "goat"),
    ],
)
def test_an_extraction_becomes_an_option_by_letter_or_by_spelling(extraction, option):
    assert predict(extraction, "text", ANIMALS) == option


def test_of_options_that_are_equally_near_the_first_is_taken():
    assert predict("cat", "text", ("bat", "rat")) == "bat"
    assert predict("cat", "text", ("rat", "bat")) == "rat"


def test_a_letter_in_brackets_is_of_the_option_even_where_options_are_letters():
    assert predict("(b)", "text", ("(c)", "(d)", "(a)", "(b)")) == "(d)"


def test_options_of_the_same_text_are_the_same():
    assert grade("D", "50", "text", ("15", "100", "50", "50")).score == 1


@pytest.mark.parametrize(
    ("extraction", "kind", "precision", "prediction"),
    [
        ("7", "integer", None, "7"),
        ("7.9", "integer", None, "7"),
        ("-0.5", "integer", None, "0"),
        (" 1e2 ", "integer", None, "100"),
        ("1,000", "integer", None, None),
        ("seven", "integer", None, None),
        ("inf", "integer", None, None),
        ("nan", "integer", None, None),
        ("", "integer", None, None),
        ("1.25", "float", 1, "1.2"),
        ("0.214", "float", 2.0, "0.21"),
        ("3", "float", 2, "3.0"),
        ("2.6", "float", None, "3"),
        ("1.5 m", "float", 1, None),
        ("[1, 2]", "list", None, "[1, 2]"),
        ("[1,2]", "list", None, "[1,2]"),
    ],
)
def test_a_number_is_rounded_to_the_rows_precision(extraction, kind, precision, prediction):
    assert predict(extraction, kind, precision=precision) == prediction


@pytest.mark.parametrize(
    ("extraction", "gold", "kind", "status"),
    [
        ("12.0", "12", "integer", Status.CORRECT),
        ("13", "12", "integer", Status.WRONG),
        ("twelve", "12", "integer", Status.UNPARSABLE_ANSWER),
        ("1.20", "1.2", "float", Status.CORRECT),
        ("[2014, 2016]", "[2014, 2016]", "list", Status.CORRECT),
        ("[2014,2016]", "[2014, 2016]", "list", Status.WRONG),
    ],
)
def test_predictions_are_compared_as_texts(extraction, gold, kind, status):
    verdict = grade(extraction, gold, kind, precision=1)
    assert verdict.status is status
    assert verdict.score == float(status is Status.CORRECT)


def test_the_reason_says_what_the_extraction_was_taken_as():
    reason = grade("(B)", "hen", "text", ANIMALS).reason
    assert reason == "'(B)', taken as 'horse', is not the gold answer 'hen'"


@pytest.mark.parametrize(
    ("response", "kind", "choices", "extraction"),
    [
        ("horse", "text", ANIMALS, "horse"),
        ("(B)", "text", ANIMALS, None),
        (" 12 ", "integer", (), "12"),
        ("12.5", "integer", (), None),
        ("12.50", "float", (), "12.5"),
        ('Well. The answer is "12 cm".', "integer", (), "12 cm"),
        ("The answer is 12.", "integer", (), None),
        ("", "integer", (), ""),
    ],
)
def test_a_response_that_is_the_answer_needs_no_llm(response, kind, choices, extraction):
    assert quick_extraction(response, kind, choices) == extraction


def test_a_long_extraction_costs_little():
    assert predict("x" * 1_000_000, "text", ANIMALS) in ANIMALS
    assert predict("9" * 1_000_000, "integer") is None
