"""Bare answers against gold answers: what is equal, and what must not be taken for it."""

from __future__ import annotations

import pytest

from rewards import equivalent

EQUAL = [
    # numbers
    ("42", "42.0"),
    ("1,234", "1234"),
    ("1{,}234{,}567", "1234567"),
    (r"\frac{1}{2}", "0.5"),
    ("1/2", r"\dfrac12"),
    (r"1\frac{1}{4}", "1.25"),
    ("1 1/4", r"\frac54"),
    ("-1 1/4", "-1.25"),
    ("½", "0.5"),
    (r"2.5\times10^{3}", "2500"),
    (r"3 \times 10^{-2}", "0.03"),
    (r"0.\overline{3}", r"\frac{1}{3}"),
    (r"0.1\dot{6}", "1/6"),
    ("0.(142857)", "1/7"),
    (r"50\%", "0.5"),
    ("50%", "50"),
    ("−3", "-3"),
    ("７", "7"),
    ("four", "4"),
    ("**73**", "73"),
    ("5!", "120"),
    (r"\binom{5}{2}", "10"),
    (r"\lfloor 2.7 \rfloor", "2"),
    (r"|{-3}|", "3"),
    ("2|x|(|y|+1)", "2|x||y|+2|x|"),
    # roots, powers, functions
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("2√2", r"\sqrt8"),
    (r"\sqrt[3]{-8}", "-2"),
    (r"\sqrt{1/n}", r"\frac{1}{\sqrt{n}}"),
    (r"\log_2 8", "3"),
    (r"\sin 30^\circ", r"\frac12"),
    (r"\tan 60°", r"\sqrt3"),
    (r"\frac{\sqrt{6}}{4}", r"\frac{\sqrt 3}{2\sqrt 2}"),
    (r"4$\sqrt{3}$", r"4\sqrt{3}"),
    (r"$\sqrt{2}$π+4$\sqrt{2}$", r"\sqrt2(\pi+4)"),
    # algebra
    ("x+x", "2x"),
    (r"(x-1)(x+1)", "x^2-1"),
    (r"\sin 2x", r"2\sin x\cos x"),
    (r"2^{n+1}-2", r"2(2^n-1)"),
    (r"\frac{3}{n}+\frac{3}{n+1}", r"\frac{6n+3}{n(n+1)}"),
    (r"\sqrt{a^2b}", r"\sqrt{b a^2}"),
    ("sqrt(3)/2", r"\frac{\sqrt3}{2}"),
    # equations and names
    ("y = 2/x", "xy = 2"),
    ("2y = -6x + 36", "y=-3x+18"),
    ("x=3", "3"),
    ("3", "x = 3"),
    ("AC=BD", "BD = AC"),
    ("f(x)=2x", "y=2x"),
    (r"3 \cdot 2 = 6", "6"),
    (r"\angle ABC = 40^\circ", r"\angle CBA=40°"),
    # sets, points, intervals
    ("(3, 6)", r"\left(3,6\right)"),
    ("A(3,6)", "(3,6)"),
    (r"\{1,2,3\}", r"\{3, 2, 1\}"),
    (r"\{1,2,2\}", r"\{1,2\}"),
    (r"[-4,3]", r"-4 \le x \le 3"),
    ("x>2", r"(2,+\infty)"),
    ("3 > x > 1", "1<x<3"),
    (r"(-\infty,-2)\cup(0,1)", "x<-2 or 0<x<1"),
    (r"x\in[1,2]", "[1,2]"),
    (r"\pm 3", "3 or -3"),
    (r"1\pm\sqrt2", r"1-\sqrt{2} or 1+\sqrt{2}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&\frac{8}{2}\end{bmatrix}"),
    ("2:4", "1:2"),
    (r"\frac23", "2:3"),
    # several blanks
    ("4, 6, -4, 0", "$$4$$,$$6$$ $$-4$$,$$0$$"),
    ("30, 50, 250", "(1)$$30$$ yuan (2)$$50$$ yuan (3)$$250$$"),
    ("1, 3, 4", "(1)(3)(4)"),
    ("①③④", "1.3.4."),
    ("9\n19\n5\n9", "9; 19; 5; 9"),
    ("6 and 2", "6, 2"),
    ("1, 1, -1", "1 1 -1"),
    ("10 or 2 or 6", "6 or 2 or 10"),
    # alternatives in the gold
    ("5", "5 (or )"),
    ("8.75", r"$$\dfrac{35}{4}$$(or fill in $$8.75$$)"),
    ("x>2", r"$$x \geqslant 2$$(or $$x > 2$$)"),
    (r"\angle C=\angle ADE", r"$$\angle B=\angle AED$$ or $$\angle C=\angle ADE$$"),
    # units
    ("30°", "30"),
    (r"30${}^\circ $", "30°"),
    ("70$textdegree$", "70"),
    ("40 m", "40m."),
    ("4000 cm", "40 m"),
    (r"\quantity{18}{cm}", "18"),
    (r"4\ \text{cm}^2", "4 cm²"),
    ("10 square meters", r"10\text{ m}^2"),
    ("360", "360 sets"),
    ("19 peppermint candies", "19"),
    ("-4 rounds per year", "-4"),
    ("15 people per square mile", "15 people per square mile"),
    ("3 square miles", "3"),
    (r"\number{10500}", "10500"),
    ("¥5", "5 yuan"),
    ("5厘米", "5 cm"),
    # words
    ("Acute.", "acute"),
    ("the rhombus", "rhombus"),
    (r"\text{Yes}", "yes"),
    (">", "$ > $"),
    # rounding: only a longer decimal against a decimal gold
    ("4.1667", "4.17"),
]

DIFFERENT = [
    ("1-1/e", "1+1/e"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    (r"\{1,2,3\}", r"\{1,2\}"),
    (r"\sqrt2", "1.41"),
    ("1.41", r"\sqrt2"),
    ("1/3", "0.33"),
    ("0.33", "1/3"),
    ("2.43", "2.4"),
    ("14.52", "14.5"),
    ("4.174", "4.18"),
    ("3", "4"),
    ("A+b", "a+b"),
    ("x=3", "y=3"),
    ("x>2", r"x\ge 2"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("1, 2", "2, 1"),
    ("6 or 2", "6 or 2 or 10"),
    ("6, 2", "6 or 2 or 10"),
    (r"\sqrt{x^2}", "x"),
    (r"\sqrt{1/n}", r"\frac1n"),
    (r"\sqrt{x}", r"\sqrt{|x|}"),
    ("|x|", "x"),
    ("|n|", "n"),
    (r"\sqrt{a^2b}", r"a\sqrt{b}"),
    ("40 m", "40 cm"),
    ("40 m", "40 m²"),
    ("40 kg", "40 cm"),
    ("5", "-5"),
    (r"\angle ABC", r"\angle BAC"),
    ("1:2", "2:1"),
    ("acute", "obtuse"),
    ("1e-30", "0"),
    (r"1+10^{-60}", "1"),
    (r"1+e^{-100}", "1"),
    ("(x+1)^2", "x^2+1"),
    ("log_2 8", "8"),
    ("x<-2", "x<-2 or 0<x<1"),
    ("11", r"1\frac{1}{4}"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_answers_are_accepted(answer: str, gold: str) -> None:
    assert equivalent(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers_are_rejected(answer: str, gold: str) -> None:
    assert not equivalent(answer, gold)
