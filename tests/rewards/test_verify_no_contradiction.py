"""An answer is right if it says what the gold says, and nothing in it contradicts that or takes it back."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import equivalent, verify

_FEW = settings(max_examples=100, deadline=None, derandomize=True)
fractions = st.fractions(min_value=-1000, max_value=1000, max_denominator=60)
integers = st.integers(-2000, 2000)
positive = st.integers(2, 2000)
letters = st.sampled_from("ABCD")
words = st.sampled_from(["green", "yes", "triangle", "Friday", "increasing", "north"])
OPTIONS = ("12 cm", "15 cm", "18 cm", "20 cm")
_PLACES = st.sampled_from([r"\boxed{%s}", "<answer>%s</answer>", "The answer is %s.", "%s", "So it is $%s$."])


def paid(completion: str, gold: str, choices: tuple[str, ...] = ()) -> bool:
    return verify(completion, gold, choices=choices).score == 1


@st.composite
def golds(draw: st.DrawFn) -> tuple[str, Fraction]:
    """Draw a number in one of its spellings, and its value."""
    value = draw(fractions)
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    spellings = [f"{sign}{top}/{bottom}", rf"{sign}\frac{{{top}}}{{{bottom}}}", rf"{sign}{top}\div{bottom}"]
    return (str(value), value) if bottom == 1 else (draw(st.sampled_from(spellings)), value)


@_FEW
@given(golds(), golds(), _PLACES, st.sampled_from(["", " cm", " kg"]))
def test_no_completion_is_right_for_two_numbers_that_differ(
    first: tuple[str, Fraction], second: tuple[str, Fraction], place: str, unit: str
) -> None:
    completion = place.replace("%s", first[0] + unit)
    right = [value for text, value in (first, second) if paid(completion, text)]
    assert len(set(right)) <= 1


@_FEW
@given(st.lists(integers, min_size=1, max_size=4), st.lists(integers, min_size=1, max_size=4), _PLACES)
def test_no_completion_is_right_for_two_lists_that_differ(a: list[int], b: list[int], place: str) -> None:
    first, second = ", ".join(map(str, a)), ", ".join(map(str, b))
    if sorted(a) != sorted(b):
        assert not (paid(place.replace("%s", first), first) and paid(place.replace("%s", first), second))


@_FEW
@given(st.lists(integers, min_size=2, max_size=4, unique=True), st.data())
def test_a_list_without_one_of_its_values_is_another(values: list[int], data: st.DataObject) -> None:
    missing = data.draw(st.sampled_from(values))
    fewer = [value for value in values if value != missing]
    assert not equivalent(", ".join(map(str, fewer)), ", ".join(map(str, values)))
    assert not equivalent(", ".join(map(str, values)), ", ".join(map(str, fewer)))


@_FEW
@given(letters, letters, st.sampled_from(["<answer>%s</answer>", r"\boxed{%s}", "The answer is (%s).", "%s"]))
def test_no_completion_is_right_for_two_options(first: str, second: str, place: str) -> None:
    completion = place.replace("%s", first)
    assert paid(completion, first, OPTIONS)
    assert paid(completion, second, OPTIONS) == (first == second)


@_FEW
@given(words, words, _PLACES)
def test_no_completion_is_right_for_two_words(first: str, second: str, place: str) -> None:
    assert paid(place.replace("%s", first), second) <= (first == second)


NEGATIONS = (
    "It is not %s.", "The answer is not %s.", r"\boxed{\text{not } %s}", "<answer>not %s</answer>",
    "The answer cannot be %s.", "So it can't be %s.", "It isn't %s.", "不是%s", "答案不是%s。",
    "It is wrong that the answer is %s.", "<answer>%s is incorrect</answer>", "Therefore, it is never %s.",
)  # fmt: skip
RETRACTIONS = (
    "The answer is %s. Wait, no, it is %o.", "The answer is %s. Actually, it is %o.",
    "The answer is %s.\nOn second thought, %o.", r"\boxed{%s} Wait, the answer is %o.",
    r"\boxed{%s}. So the final answer is \boxed{%o}.", "The answer is %s. No, that is wrong.",
)  # fmt: skip
ALTERNATIVES = (
    r"\boxed{%s \text{ or } %o}", "<answer>%s or %o</answer>", "The answer is %s or %o.", r"\boxed{%o, %s}",
    "<answer>%s, maybe %o</answer>", "<answer>%s perhaps %o</answer>", "The answer is either %o or %s.",
    "<answer>%s\n%o</answer>", r"\boxed{%s} or \boxed{%o}", "The answer is probably %s, maybe %o.",
)  # fmt: skip
BOUNDS = (
    "So there are fewer than %s.", "Hence at least %s.", r"\boxed{> %s}", "Thus the result exceeds %s.",
    "<answer>more than %s</answer>", "The answer is less than %s.", r"\boxed{x \ge %s}", "So n > %s.",
)  # fmt: skip


UNITS = ("cm", "kg", "s", "m/s", "dollars", "%", "°", "liters", "people")
SCALES = ("million", "thousand", "hundred", "dozen", "thirds", "tenths", "billion")


@pytest.mark.parametrize("template", [*NEGATIONS, *RETRACTIONS, *ALTERNATIVES])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.one_of(integers.map(str), letters, words, fractions.map(str)))
def test_a_denial_a_retraction_or_an_alternative_is_never_right(template: str, gold: str) -> None:
    other = "1729" if gold != "1729" else "2027"
    assert not paid(template.replace("%s", gold).replace("%o", other), gold)


@pytest.mark.parametrize("template", BOUNDS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(integers)
def test_a_bound_is_never_the_value(template: str, gold: int) -> None:
    assert not paid(template.replace("%s", str(gold)), str(gold))


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(positive, st.sampled_from(UNITS))
def test_a_number_in_another_unit_is_never_right(unit: str, gold: int, other: str) -> None:
    assert paid(f"The answer is {gold} {unit}.", f"{gold} {unit}")
    if other != unit:
        assert not paid(f"The answer is {gold} {other}.", f"{gold} {unit}")
        assert not paid(rf"\boxed{{{gold}\text{{ {other}}}}}", f"{gold} {unit}")


@pytest.mark.parametrize("word", SCALES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(positive)
def test_a_scale_word_changes_the_value(word: str, gold: int) -> None:
    assert not paid(rf"\boxed{{{gold} {word}}}", str(gold))
    assert not paid(rf"\boxed{{{gold}}}", f"{gold} {word}")
