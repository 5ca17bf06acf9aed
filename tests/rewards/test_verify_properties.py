"""Properties of equality over random numbers, expressions and texts."""

from __future__ import annotations

from fractions import Fraction

import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import equivalent, extract_answer, verify

_FEW = settings(max_examples=60, deadline=None, derandomize=True)
fractions = st.fractions(min_value=-10_000, max_value=10_000, max_denominator=500)


def _latex(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


@_FEW
@given(fractions)
def test_a_fraction_equals_its_other_spellings(value: Fraction) -> None:
    assert equivalent(_latex(value), f"{value.numerator}/{value.denominator}")
    assert equivalent(_latex(value), rf"{_latex(value * 3)} \div 3")


@_FEW
@given(fractions, fractions)
def test_two_fractions_are_equal_exactly_if_their_values_are(a: Fraction, b: Fraction) -> None:
    assert equivalent(_latex(a), _latex(b)) == (a == b)


@_FEW
@given(st.integers(-(10**12), 10**12), st.integers(1, 9))
def test_a_perturbed_integer_is_wrong(value: int, change: int) -> None:
    assert equivalent(f"{value:,}", str(value))
    assert not equivalent(str(value + change), f"{value:,}")


@_FEW
@given(st.decimals(0, 1000, places=3), st.integers(1, 4))
def test_trailing_zeros_change_nothing(value: object, zeros: int) -> None:
    assert equivalent(f"{value}{'0' * zeros}", str(value))


x, y = sympy.symbols("x y")
_LEAVES = st.sampled_from([x, y, sympy.Integer(2), sympy.Integer(3), sympy.Rational(1, 3), sympy.pi])


def _grown(inner: st.SearchStrategy[sympy.Expr]) -> st.SearchStrategy[sympy.Expr]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        inner.map(lambda e: e**2),
        inner.map(sympy.sin),
        inner.map(lambda e: sympy.sqrt(e**2 + 1)),
        inner.map(lambda e: 1 / (e**2 + 1)),
    )


expressions = st.recursive(_LEAVES, _grown, max_leaves=5)


@_FEW
@given(expressions)
def test_an_expression_equals_the_latex_that_sympy_prints_of_its_expansion(expression: sympy.Expr) -> None:
    printed, expanded = sympy.latex(expression), sympy.latex(sympy.expand(expression))
    assert equivalent(printed, expanded)
    assert equivalent(expanded, printed)


@_FEW
@given(expressions)
def test_an_expression_plus_one_is_another(expression: sympy.Expr) -> None:
    assert not equivalent(sympy.latex(expression) + "+1", sympy.latex(expression))


_PIECES = [
    *(
        "0",
        "1",
        "2",
        ".",
        ",",
        "x",
        "y",
        "+",
        "-",
        "*",
        "/",
        "^",
        "_",
        "=",
        "<",
        ">",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "|",
    ),
    *(
        "!",
        "%",
        "$",
        ":",
        ";",
        "\\",
        " ",
        "\n",
        "or",
        "and",
        "和",
        "°",
        "π",
        "√",
        "√(",
        "①",
        "½",
        "²",
        "__",
        "**",
    ),
    *(
        r"\frac",
        r"\sqrt",
        r"\text{",
        r"\left(",
        r"\{",
        r"\pm",
        r"\cup",
        r"\infty",
        r"\sin",
        r"\log_",
        r"\angle",
    ),
    *(
        "cm",
        "miles",
        "square",
        "yuan",
        "per",
        "sets",
        "Yes",
        "not",
        "inches",
        "A",
        "B",
        "(1)",
        "A.",
        "is",
        "one",
    ),
    *(
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        "&",
        r"\\\\",
        r"\binom",
        r"^{\circ}",
        r"\overline{",
        r"\dot",
        r"\boxed{",
    ),
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(_PIECES), max_size=14), st.sampled_from(["", " "]))
def test_any_text_gets_a_verdict_and_never_an_exception(pieces: list[str], joint: str) -> None:
    text = joint.join(pieces)
    extract_answer(text)
    for completion, gold in ((f"\\boxed{{{text}}}", "1"), ("\\boxed{1}", text), (text, text)):
        assert verify(completion, gold, choices=("1", "x", text), timeout=0.5).reason
        assert verify(completion, gold, timeout=0.5).reason


@_FEW
@given(expressions)
def test_every_expression_equals_itself(expression: sympy.Expr) -> None:
    printed = sympy.latex(expression)
    assert equivalent(printed, printed)


@_FEW
@given(expressions, expressions)
def test_equality_of_expressions_does_not_depend_on_the_side(a: sympy.Expr, b: sympy.Expr) -> None:
    first, second = sympy.latex(a), sympy.latex(b)
    assert equivalent(first, second) == equivalent(second, first)


@_FEW
@given(fractions, fractions)
def test_an_interval_equals_its_inequality_on_either_side(a: Fraction, b: Fraction) -> None:
    low, high = sorted((a, b))
    if low == high:
        return
    interval = rf"({_latex(low)}, {_latex(high)}]"
    inequality = rf"{_latex(low)} < x \le {_latex(high)}"
    assert equivalent(inequality, interval)
    assert equivalent(interval, inequality)
