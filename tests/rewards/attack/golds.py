"""Golds in the forms that data sets have, written for these tests; some have options."""

from __future__ import annotations

NUMBERS = (
    "0", "1", "4", "7", "10", "12", "23", "40", "-3", "-12", "100", "101", "1,250", "12,000", "0.5", "3.75",
    "-0.25", "1/2", "-3/4", "22/7", r"\frac{3}{8}", r"$\dfrac{5}{6}$", r"$\frac94$", "$$17$$", "$6$.",
    r"\boxed{19}", "2048", "15%", r"$37.5\%$", "45°", r"$60^{\circ}$", "8 cm", r"$9\ \mathrm{cm}$",
    r"12 \text{ kg}", "30 m", "5 hours", r"\$24", "18 apples",
)  # fmt: skip
TIMES = ("7:10", "12:05", "3:30", "10:00")
WORDS = ("green", "yes", "no", "nonlinear", "isosceles triangle", "Friday", "parallel", "True", "surplus")
LETTERS = ("A", "C", "(B)", "$D$")
FORMULAS = (
    r"$3\sqrt{2}$", r"$2\sqrt{3}-1$", r"\frac{\pi}{4}", r"$4\pi$", r"$\dfrac{\sqrt{5}}{5}$", r"$2^{n+1}-2$",
    "2x+1", "x^2-4x+3", "3a+2b", r"$\frac{x}{x+1}$", r"$2\sin(2x-\frac{\pi}{6})$", r"$\sqrt{a^2+3b^2}$",
    r"n(n+1)/2", r"$-\frac{\sqrt{2}}{6}$", "x", "ab", "3^{n-1}",
)  # fmt: skip
EQUATIONS = (
    "x=3", "$y=2x+1$", r"$$y=\dfrac{2}{x}$$", "x-3y+24=0", r"$\frac{x^2}{16}-\frac{y^2}{20}=1$",
    "f(x)=x^2-1", "x^2+y^2=4", "$S=3t^2$", "a^2-b^2=(a+b)(a-b)",
)  # fmt: skip
RELATIONS = ("x>3", r"$x \le 5$", "1<x<6", r"$-2 \leq x < 4$", r"x \neq 2", "y≥0")
BRACKETS = ("(3,7)", "$[-4,3]$", r"$(-\infty,2]$", r"$\left(3,\frac{3}{2}\right)$", "[0,1)", "(2,2)")
LISTS = ("-3,0", "2,5", "$1, 2, 3$", "3; 4", "1/2, 3", "5,5")
PLUS_MINUS = (r"$x=\pm 5$", r"y=\pm\sqrt{3}x", r"$1 \pm \sqrt{19}$", r"x \neq \pm 5")
ASSIGNMENTS = (r"$a=3 \quad b=4$", "x=-4, y=-2", "f(x)=x, f(x)=-x")
SPANS = ("3-5", "1999-2000", "2020-05-05", "5/6/2020")
PARTS = ("(1) $3$ (2) $6$", "9\n19\n5", "14 meters\n10 square meters")
CHOICES = (
    ("A", ("12 cm", "15 cm", "18 cm", "20 cm")),
    ("15 cm", ("12 cm", "15 cm", "18 cm", "20 cm")),
    ("D", ("$1$", r"$\frac{1}{2}$", "$2$", r"$\sqrt{2}$")),
    ("surplus", ("shortage", "surplus")),
    ("B", ("A", "B", "C", "D", "E")),
    ("E", ("3", "5", "7", "9", "None of these")),
)
# No answer is surely wrong for these, or the same answer has several forms.
SKIPPED = (
    "", "any number (not unique)", "x^2+C", "2 or 3", "1.2.4.", r"$x \in (0,1)$", "about 5, e.g. 6",
    r"k\pi+\frac{\pi}{2}, k\in Z", "0 and 4",
)  # fmt: skip
PLAIN = (
    NUMBERS
    + TIMES
    + WORDS
    + LETTERS
    + FORMULAS
    + EQUATIONS
    + RELATIONS
    + BRACKETS
    + LISTS
    + PLUS_MINUS
    + ASSIGNMENTS
    + SPANS
    + PARTS
)
GOLDS: tuple[tuple[str, tuple[str, ...]], ...] = tuple((gold, ()) for gold in PLAIN) + CHOICES
