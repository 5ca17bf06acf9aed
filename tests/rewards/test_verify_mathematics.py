"""Equality in every kind of mathematics that answers hold, each with its nearest wrong neighbour."""

from __future__ import annotations

import pytest

from rewards import Status, equivalent, verify

PAIRS = {
    "repeating decimal": (r"0.\overline{142857}", r"\frac17", r"0.\overline{142856}"),
    "floor": (r"\lfloor -2.5 \rfloor", "-3", "-2"),
    "ceiling in Unicode": ("⌈2.1⌉", "3", "2"),
    "binomial": (r"\binom{10}{3}", "120", "720"),
    "combinations as at school": ("C_5^2", "10", "25"),
    "arrangements as at school": ("A_5^2", "20", "10"),
    "factorial": ("5!", "120", "60"),
    "logarithm": (r"\log_2 32", "5", "16"),
    "natural logarithm": (r"\ln e^3", "3", "e"),
    "trigonometry": (r"\cos 60^\circ", r"\frac12", r"\frac{\sqrt3}{2}"),
    "matrix": (
        r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}",
        r"\begin{bmatrix}1&2\\3&4\end{bmatrix}",
        r"\begin{bmatrix}1&3\\2&4\end{bmatrix}",
    ),
    "sum of matrices": (
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}+\begin{pmatrix}1&0\\0&1\end{pmatrix}",
        r"\begin{pmatrix}2&2\\3&5\end{pmatrix}",
        r"\begin{pmatrix}2&2\\3&4\end{pmatrix}",
    ),
    "product of matrices": (
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}\begin{pmatrix}0&1\\1&0\end{pmatrix}",
        r"\begin{pmatrix}2&1\\4&3\end{pmatrix}",
        r"\begin{pmatrix}3&4\\1&2\end{pmatrix}",
    ),
    "vector": (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}", "(2,1)"),
    "complex number": ("(1+2i)(1-2i)", "5", "-3"),
    "modulus": ("|3+4i|", "5", "7"),
    "ratio": ("4:6", "2:3", "3:2"),
    "time of day": ("3:05", "03:05", "3:50"),
    "time of day in halves": ("3:05 p.m.", "15:05", "3:05"),
    "time against another": ("12:00", "12:00", "1:00"),
    "inequality for an interval": ("x>2", r"(2,\infty)", r"[2,\infty)"),
    "interval for an inequality": (r"[1,3)", r"1 \le x < 3", r"1 < x \le 3"),
    "multiple of an inequality": ("-2x > -6", "x < 3", "x > 3"),
    "bars for a union": ("|x|>2", r"(-\infty,-2)\cup(2,\infty)", "(-2,2)"),
    "union in any order": (r"(3,4)\cup(1,2)", r"(1,2)\cup(3,4)", r"(1,2)\cup(3,5)"),
    "plus or minus": (r"\pm2", "2 or -2", "2"),
    "solutions of an equation": (r"x=\pm2", "x^2=4", "x=2"),
    "several solutions": ("x=2 or x=3", "x^2-5x+6=0", "x=2 or x=4"),
    "solutions by index": ("x_1=3, x_2=2", "x_1=2, x_2=3", "x_1=2, x_2=4"),
    "named items": ("b=2, a=1", "a=1, b=2", "a=2, b=1"),
    "chain of equations": ("x = 5+6 = 11", "x=11", "x = 5+6 = 12"),
    "approximation in a chain": (r"x=\frac13\approx0.33", r"\frac13", "0.33"),
    "named tuple": ("(p,q)=(3,2)", "(3,2)", "(2,3)"),
    "named ratio": (r"\frac{NO}{BO}=\frac12", r"\frac12", "2"),
    "points for named values": ("(5,2),(7,2)", "p=5,q=2;p=7,q=2", "(5,7),(2,2)"),
    "coordinates by semicolons": ("(1;2)", "(1,2)", "(2;1)"),
    "sum by its factors": (r"\sum_{k=0}^n a_k b_k", r"\sum_{k=0}^n b_k a_k", r"\sum_{k=1}^n a_k b_k"),
    "degrees and minutes": ("30°15'", "30.25°", "30.15°"),
    "dollars": (r"\$16,\!386.20", "16386.20", "16386.02"),
    "euros": ("1,000.99€", "1000.99", "1000.9"),
    "another currency": ("¥5", "5 yuan", "5 euro"),
    "mixed number": (r"2\frac{3}{4}", "2.75", r"\frac64"),
    "scientific notation": (r"1.2\times10^{-3}", "0.0012", "0.012"),
    "decimal comma": ("2,74", "2.74", "2,75"),
    "spaced thousands": ("12 000", "12000", "12 001"),
    "alternative in the gold": ("8.75", r"$\frac{35}{4}$ (or fill in $8.75$)", "8.7"),
    "Chinese unit": ("5厘米", "5 cm", "5米"),
    "root for a long decimal": (r"\sqrt{17}", "4.123105625617661", r"\sqrt{18}"),
    "escaped twice": (r"\\frac{1}{2}", "0.5", r"\\frac{1}{3}"),
}  # fmt: skip


@pytest.mark.parametrize(("right", "gold", "wrong"), PAIRS.values(), ids=PAIRS)
def test_the_right_answer_is_accepted_and_its_neighbour_is_not(right: str, gold: str, wrong: str) -> None:
    assert equivalent(right, gold)
    assert equivalent(gold, gold)
    assert not equivalent(wrong, gold)


def test_lists_are_in_order_unless_the_caller_says_that_they_are_sets() -> None:
    assert not equivalent("-2, 1", "1, -2")
    assert equivalent("-2, 1", "1, -2", ordered=False)
    assert not equivalent("-2, 2", "1, -2", ordered=False)
    assert verify(r"\boxed{3,1}", "1,3", ordered=False).status is Status.CORRECT
    assert not equivalent("(3,1)", "(1,3)", ordered=False)


def test_a_gold_too_large_for_a_float_is_compared_with_a_root() -> None:
    assert not equivalent(r"\sqrt{17}", "9" * 390 + ".12345")
