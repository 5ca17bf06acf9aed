"""TabMWP's rule."""

from __future__ import annotations

import pytest

from eval.official.tabmwp import extract, grade, normalise


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("The answer is 12.", "12"),
        ("3 + 4 = 7", "7"),
        ("The total will be $1.40 in the end", "$1.40"),
        ("It opens at 7:25 P.M.", "7:25 P.M."),
        (r"It is $\frac{16}{95}$", "16/95"),
        ("14 and 15", "15"),
        ("The table shows that 14 people came", "14"),
        ("none", "none"),
    ],
)
def test_the_first_matching_pattern_gives_the_value(response: str, value: str) -> None:
    assert extract(response) == value


@pytest.mark.parametrize(
    ("response", "option"),
    [
        ("(B)", "nonlinear"),
        ("b", "nonlinear"),
        ("The answer is A", "linear"),
        ("(B) nonlinear", "nonlinear"),
        ("nonlinear", "nonlinear"),
        # A letter beyond the options names none; no word is common, and the first option is taken.
        ("(F)", "linear"),
    ],
)
def test_multiple_choice_never_abstains(response: str, option: str) -> None:
    assert extract(response, ["linear", "nonlinear"]) == option


@pytest.mark.parametrize(
    ("text", "unit", "plain"),
    [
        ("1,000", "", "1000"),
        ("$56.40", "", "56.4"),
        ("3/4", "", "0.75"),
        ("0.33333", "", "0.333"),
        ("2.0", "", "2"),
        ("-10.02", "", "-10.02"),
        ("12 kg", "kg", "12"),
        ("1/0", "", "1/0"),
        ("9" * 5000, "", "9" * 5000),
    ],
)
def test_numbers_are_written_alike(text: str, unit: str, plain: str) -> None:
    assert normalise(text, unit) == plain


def test_answers_are_compared_after_normalisation() -> None:
    assert grade("The answer is $1,234.50.", "1234.5", unit="$").score == 1
    assert grade("The answer is 12.", "13").score == 0
