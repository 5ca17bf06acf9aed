"""Official scoring of MathVision: extraction, notation, numeric values, equality."""

import time

import pytest

from eval.official.mathvision import equal, extract_answer, grade, number, rounded_members
from rewards import Status

OPTIONS = ("10", r"$\frac{3}{4}$", "Wednesday", r"$2 \sqrt{3}$", "2:30")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"So \boxed{5}.", "5"),
        (r"First \boxed{4}, no: \boxed{5}", "5"),
        ("It must be C.", "c"),
        ("It must be (C).", "c"),
        ("(B)\nBecause of the angles.", "b"),
        ("(B) B\nBecause.", "b"),
        (r"B" + "\n" + r"\boxed{C}", "b"),
        ("The sum of both is 12.", "12"),
        (r"\boxed{7}, whose half is 3.5", "3.5"),
        ("The answer is 5 apples. That is all", "5apples"),
        ("the answer is 4.\nOr the answer is 6", "6"),
        ("The final answer is: (d)", "d"),
        (r"\boxed{x = 3}", "3"),
        (r"\boxed{x \approx 3.14}", "3.14"),
        (r"\boxed{\text{Wednesday}}", "{wednesday}"),
        (r"\boxed{\text{(E)}}", "e"),
        (r"\boxed{30^{\circ}}", "30"),
        (r"\boxed{7 \text{ km}}", "7"),
        (r"\boxed{50\%}", "50"),
        (r"\boxed{.5}", r"\frac{1}{2}"),
        (r"\boxed{3/4}", r"\frac{3}{4}"),
        (r"\boxed{2\sqrt3}", r"2\sqrt{3}"),
        (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and {2}", "1"),
        (r"\boxed{\frac{1}{2}} of {it}", r"\frac{1}{2}}of{it"),
        (r"\boxed{5", r"\boxed{5"),
        ("I cannot see it", "icannotseeit"),
        ("", ""),
    ],
)
def test_the_answer_is_found_where_the_benchmark_searches(response, answer):
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("1,000", 1000), ("0.125", 0.12), ("45.", 45), (".5", 0.5), ("007", 7),
        (r"\frac{9\sqrt{3}}{4}", 3.9), (r"2\pi", 6.28), (r"1\frac{1}{2}", 0.5), (r"1/2\pi", 0.16),
        ("3:2", 1.5), ("12:30", 0.4), (r"4!/2", 12.0), (r"\log_{2}8", 3.0), (r"\sqrt[3]{8}", 2.0),
        (r"$5 \sqrt{2}$", 7.07), (r"20\%", 0.2), (r"3^{2} 5", 45), ("e^2", 7.39), (r"\sin(1)", 0.84),
        (r"\left(1+2\right)\cdot 2", 6), (r"\binom{4}{2}", 6), (r"$\displaystyle \frac{1}{2}$", 0.5),
        ("5 triangles", 5), ("12rows", 12), (r"\frac{1}{8}}\mathrm{~m}^{2", 0.12), ("-1.sothecard", -1),
        (r"6 \rightarrow 7", 6), ("3)", 3), ("$x = 5$", 5),
    ],
)  # fmt: skip
def test_text_that_the_scorer_parses_has_this_number(text, value):
    assert number(text) == value
    assert type(number(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    ["", "e", "a", "pi", "5cm", "1e5", r"\ln 2", r"\frac12", r"\sqrt2", r"\frac{3}4", "5-", "5%", "60°", "π",
     "5×3", "|-3|", "1,2", "(1,2)", r"\{1,2\}", r"\$5", r"\infty", "x=y", r"\sqrt{-1}", "1/0", "(5", r"-\!4",
     r"60^{\circ}", "9**9**9**9", "9^{9^{9^{9}}}", "(" * 500, "1+" * 3000 + "1"],
)  # fmt: skip
def test_text_that_the_scorer_cannot_parse_has_no_number(text):
    assert number(text) is None


def test_a_long_text_has_the_number_that_it_begins_with():
    assert number("1.first," + "wecount" * 1000) == 1


def test_members_of_a_tuple_are_rounded_one_by_one():
    assert rounded_members(r"(\frac{1}{3},2)") == "(0.33,2)"
    assert rounded_members(r"[1.0,-\infty]") == r"[1,-\infty]"
    assert rounded_members("(1,b)") == "(1,b)"
    assert rounded_members("(5)") == "(5)"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("B", "b", True),
        (" 11", "11 ", True),
        ("$4 \\pi$", "12.57", True),
        ("12.566", "12.57", True),
        ("12.56", "12.57", False),
        ("(3,-4)", "(3.0,-4)", True),
        ("(3,-4)", "(-4,3)", False),
        ("e", "2.72", False),
        ("", "", False),
        ("x", "y", False),
        ("1.5", r"1\frac{1}{2}", False),
    ],
)
def test_answers_are_equal_as_text_as_tuple_or_to_two_decimals(first, second, same):
    assert equal(first, second) is same
    assert equal(second, first) is same


@pytest.mark.parametrize(
    ("response", "gold", "status"),
    [
        (r"\boxed{A}", "A", Status.CORRECT),
        (r"\boxed{10}", "A", Status.CORRECT),
        (r"\boxed{0.75}", "B", Status.CORRECT),
        ("The answer is wednesday", "C", Status.CORRECT),
        (r"\boxed{3.46}", "D", Status.CORRECT),
        (r"\boxed{B}", "A", Status.WRONG),
        (r"\boxed{wednesday}", "A", Status.WRONG),
        (r"\boxed{11}", "A", Status.WRONG),
        ("I do not know", "A", Status.UNPARSABLE_ANSWER),
        ("", "A", Status.NO_ANSWER),
        (r"\boxed{}", "A", Status.UNPARSABLE_ANSWER),
    ],
)
def test_a_choice_is_right_by_its_letter_or_its_text(response, gold, status):
    verdict = grade(response, gold, OPTIONS)
    assert verdict.status is status
    assert verdict.score == float(status is Status.CORRECT)


@pytest.mark.parametrize(
    ("response", "gold", "status"),
    [
        (r"\boxed{\frac{1}{3}}", "0.333", Status.CORRECT),
        (r"\boxed{C}", "C", Status.CORRECT),
        (r"\boxed{5}", "6", Status.WRONG),
        (r"\boxed{5 apples}", "5", Status.UNPARSABLE_ANSWER),
        (r"\boxed{D}", "C", Status.WRONG),
    ],
)
def test_a_free_answer_is_compared_with_the_gold_answer(response, gold, status):
    assert grade(response, gold).status is status


def test_a_gold_letter_without_its_option_is_compared_as_it_is():
    assert grade(r"\boxed{E}", "E", ("1", "2")).score == 1
    assert grade(r"\boxed{2}", "E", ("1", "2")).score == 0


def test_the_reason_says_what_was_compared():
    assert grade(r"\boxed{10}", "A", OPTIONS).reason == "10 equals the text of the gold option A, 10"
    assert grade(r"\boxed{11}", "A", OPTIONS).reason == "11 is not equal to the gold answer A, 10"


def test_a_hostile_response_costs_little():
    for text in (r"\boxed{" * 20_000, "{" * 100_000, r"\boxed{" + "9^" * 50_000 + "}", "is " * 100_000):
        assert grade(text, "5").score == 0


def test_marks_that_are_spacing_take_no_quadratic_time() -> None:
    started = time.monotonic()
    assert grade("5" + "'" * 200_000, "6").score == 0
    assert time.monotonic() - started < 5
