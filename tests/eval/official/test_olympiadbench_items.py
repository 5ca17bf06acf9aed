"""Comparison of two items of an answer, as OlympiadBench does it."""

import pytest

from eval.official.olympiadbench import grade
from rewards import Status


def right(answer, gold, **options):
    verdict = grade(answer, gold, **options)
    assert verdict.score == float(verdict.status is Status.CORRECT)
    return verdict.status is Status.CORRECT


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("[1,2)", r"[1,\frac{4}{2})", True),
        ("[1,2]", "[1,2)", False),
        ("(1,2)", "(1,3)", False),
        (r"(-\infty, \sqrt{4}]", r"(-\infty,2]", True),
        (r"x \in (0,1) \cup (2,3)", r"(0,1)\cup(2,\sqrt{9})", True),
        (r"(0,1) \cup (2,3)", r"(2,3) \cup (0,1)", False),
        ("(1,2,3)", "(1,2)", False),
        ("(1,2)", "(1,2,3)", False),
        ("(x+1)(x+2)", "(x+2)(x+1)", True),
    ],
)
def test_intervals_have_the_same_brackets_and_equal_ends(answer, gold, equal):
    assert right(answer, gold) is equal


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("2x+4y=6", "x+2y=3", True),
        ("x+2y=3", "2x+4y=6", True),
        ("3-2y=x", "x+2y=3", True),
        ("3x+6y=9", "2x+4y=6", True),
        ("x+2y=4", "x+2y=3", False),
        ("xy=2", r"y=\frac{2}{x}", False),
        ("0=0", "x+2y=3", False),
        ("x=5", "5", True),
        ("5", "x=5", True),
        ("y=5", "x=5", False),
        ("x=2+3=5", "5", True),
        ("f(x,y)=x+x", "2x-f(x, y)=0", True),
        (r"2F = \frac{16}{25}N", "F=0.32N", True),
    ],
)
def test_equations_are_equal_up_to_a_constant_factor(answer, gold, equal):
    assert right(answer, gold) is equal


@pytest.mark.parametrize(
    ("answer", "gold", "error", "equal"),
    [
        ("3.1", "3.14", "0.05", True),
        ("3.1", "3.14", "0.03", False),
        ("3.1", "3.14", None, False),
        ("3.1", "3.14", "", False),
        ("3.1", r"\pi", 0.05, True),
        ("x=3.1", r"\pi", "0.05", True),
        ("2.000000005", "2", None, True),
        ("2.0000001", "2", None, False),
        ("3.1, 10.4", "3, 10", "0.2,0.5", True),
        ("10.4, 3.1", "3, 10", "0.2,0.5", True),
        ("3.4, 10.1", "3, 10", "0.2,0.5", False),
        ("3.1, 10.4", "3, 10", "0.2,", False),
        ("3.1, 10", "3, 10", "0.2,", True),
    ],
)
def test_numbers_may_differ_by_the_rows_error(answer, gold, error, equal):
    assert right(answer, gold, error=error) is equal


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("50", "0.5", True),
        ("0.5", "50", True),
        (r"50\%", "0.5", True),
        ("500", "0.5", False),
        ("5", "0.5", False),
    ],
)
def test_a_number_may_be_a_percentage_of_the_other(answer, gold, equal):
    assert right(answer, gold) is equal


def test_only_numbers_in_digits_may_be_percentages():
    assert right(r"\frac{1}{2}", "50") is False


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        (r"\sin 2x", r"2\sin x\cos x", True),
        ("x^2+3x+2", "(x+1)(x+2)", True),
        ("x+0.3333", r"x+\frac{1}{3}", True),
        ("x+0.33", r"x+\frac{1}{3}", False),
        ("1.0001x", "x", False),
        ("2x", "x", False),
        ("x", "y", False),
        ("x", "1", False),
        (r"\sqrt{2}\cdot 10^{20}", r"10^{20}\sqrt{2}", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\frac{16}{25}N", "0.64N", True),
        ("0.64", "0.64N", False),
        (r"\frac{E \hbar}{c}", r"\frac{\hbar E}{c}", True),
        ("v_0^2 t + t", "t(v^2_0 + 1)", True),
        (r"\frac{n!}{k!}", r"\frac{n(n-1)!}{k!}", True),
    ],
)
def test_expressions_may_differ_by_a_constant_below_a_thousandth(answer, gold, equal):
    assert right(answer, gold) is equal


def test_a_comparison_without_time_is_a_timeout():
    verdict = grade(r"\sin 2x", r"2\sin x\cos x", limit=0)
    assert (verdict.status, verdict.score) == (Status.TIMEOUT, 0.0)


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        (r"$1000-333=\mathbf{6 6 7}$", "667", True),
        (r"$\frac{\mathbf{1}}{\mathbf{1 6}}$", r"\frac{1}{16}", True),
        (r"\mathbf{1 2 . 5}", "12.5", True),
        (r"6~6~7", "667", True),
        (r"\sqrt{2 0}", r"2\sqrt{5}", True),
        (r"2^{1 0}", "1024", True),
        ("667", r"\mathbf{6 6 7}", True),
        ("2 3", "6", False),
        ("6 6 8", "667", False),
        (r"1 \frac{1}{2}", r"\frac{3}{2}", True),
        (r"\frac 1 2", "0.5", True),
    ],
)
def test_spaces_within_a_number_do_not_count(answer, gold, equal):
    assert right(f"So the final answer is {answer}", gold) is equal
