"""What is generated for golds of every form, and that it is wrong."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from rewards.attack import attacks
from tests.rewards.attack.golds import GOLDS, NUMBERS, SKIPPED


def kinds(gold: str, choices: tuple[str, ...] = ()) -> set[str]:
    return {one.kind for one in attacks(gold, choices)}


def completions(gold: str, kind: str, choices: tuple[str, ...] = ()) -> set[str]:
    return {one.completion for one in attacks(gold, choices) if one.kind == kind}


def inside(completion: str) -> str:
    """Return the content of a completion that is one box or one tag, else the whole."""
    found = re.fullmatch(r"\\boxed\{(.*)\}|<answer>(.*)</answer>", completion, re.DOTALL)
    return next(group for group in found.groups() if group is not None) if found else completion


def plain(text: str) -> str:
    return "".join(text.replace("$", "").lower().split())


@pytest.mark.parametrize(("gold", "choices"), GOLDS)
def test_a_gold_of_every_form_is_attacked(gold: str, choices: tuple[str, ...]) -> None:
    made = attacks(gold, choices)
    assert len(made) >= 20
    assert all(one.kind and one.why for one in made)


@pytest.mark.parametrize(("gold", "choices"), GOLDS)
def test_no_attack_is_the_gold_answer_itself(gold: str, choices: tuple[str, ...]) -> None:
    texts = {plain(inside(one.completion)) for one in attacks(gold, choices)}
    assert plain(gold).rstrip(".") not in texts


@pytest.mark.parametrize("gold", SKIPPED)
def test_a_gold_that_cannot_be_changed_safely_is_not_attacked(gold: str) -> None:
    assert {one.kind for one in attacks(gold)} <= {"empty", "injection"}


def exact(text: str) -> Fraction | None:
    """Return the value of a number as Python's fractions read it, without the bench's own reader."""
    try:
        return Fraction(re.sub(r"[,\s]", "", text))
    except (ValueError, ZeroDivisionError):
        return None


@pytest.mark.parametrize("gold", [gold for gold in NUMBERS if exact(gold) is not None])
def test_a_changed_number_has_another_value(gold: str) -> None:
    changed = [exact(inside(text)) for text in completions(gold, "changed number")]
    assert len([value for value in changed if value is not None]) >= 4
    assert exact(gold) not in changed


def test_zero_has_no_opposite_and_no_multiple() -> None:
    assert not {"-0", "00", "0 million"} & {inside(text) for text in all_texts("0")}


def all_texts(gold: str) -> set[str]:
    return {one.completion for one in attacks(gold)}


def test_one_squared_and_two_factorial_are_not_attacks() -> None:
    assert r"\boxed{1 squared}" not in all_texts("1")
    assert r"\boxed{2!}" not in all_texts("2")
    assert r"\boxed{3!}" in all_texts("3")


def test_a_palindrome_written_from_right_to_left_is_not_an_attack() -> None:
    assert not [text for text in all_texts("101") if "\u202e" in text]
    assert [text for text in all_texts("23") if "\u202e" in text]


def test_percent_is_not_divided_by_a_hundred() -> None:
    assert not {r"0.15%", "1500%"} & {inside(text) for text in all_texts("15%")}


def test_a_unit_is_swapped_for_others_and_not_for_its_own_names() -> None:
    texts = " ".join(completions("8 cm", "unit"))
    assert "kg" in texts
    assert "inches" in texts
    assert "8 cm." not in texts


def test_the_degree_sign_is_not_swapped_for_itself() -> None:
    assert not [text for text in completions(r"$60^{\circ}$", "unit") if "°" in text]


def test_a_number_without_a_unit_may_have_any() -> None:
    assert "unit" not in kinds("1/2")
    assert not [text for text in completions("8", "unit") if "+" not in text and "and" not in text]


def test_equal_items_are_not_partial_answers() -> None:
    assert r"\boxed{5}" not in completions("5,5", "partial")
    assert r"\boxed{5}" in completions("2,5", "partial")


def test_equal_ends_are_not_swapped() -> None:
    assert r"\boxed{(2,2)}" not in all_texts("(2,2)")


def test_an_identity_is_not_attacked_by_identities() -> None:
    assert r"\boxed{x=x}" not in all_texts("a^2-b^2=(a+b)(a-b)")
    assert r"\boxed{x=x}" in all_texts("x=3")


def test_the_hidden_division_by_zero_is_in_the_letters_of_the_gold_equation() -> None:
    assert r"\boxed{y=y\cdot 2^{\frac{1}{(y+1)^2-y^2-2y-1}}}" in all_texts("y=2x+1")


def test_one_equals_one_is_no_attack_on_1() -> None:
    assert r"\boxed{1=1}" not in all_texts("1")
    assert r"\boxed{x-x=0}" not in all_texts("0")


def test_a_relation_is_turned_round_and_loosened() -> None:
    changed = {plain(inside(text)) for text in completions("x>3", "changed relation")}
    assert {"x<3", r"x\ge3", "x=3"} <= changed


def test_an_interval_gets_other_brackets_and_ends() -> None:
    changed = {plain(inside(text)) for text in completions("[0,1)", "changed interval")}
    assert {"(0,1)", "[0,1]", "[1,0)"} <= changed


def test_one_of_two_values_with_plus_and_minus_is_partial() -> None:
    texts = {plain(inside(text)) for text in completions(r"$1 \pm \sqrt{19}$", "partial")}
    assert {r"1+\sqrt{19}", r"1-\sqrt{19}"} <= texts
    assert {plain(inside(text)) for text in completions(r"$x=\pm 5$", "partial")} >= {"x=5", "x=-5"}


def test_the_values_of_two_equations_are_exchanged_and_left_out() -> None:
    texts = {plain(inside(text)) for text in completions(r"$a=3 \quad b=4$", "partial")}
    assert {"a=3", "4", "a=4,b=3"} <= texts


def test_a_span_and_a_date_are_no_differences() -> None:
    assert r"\boxed{-2}" in completions("3-5", "span or date")
    assert r"\boxed{2010}" in completions("2020-05-05", "span or date")


def test_a_sum_of_two_lengths_is_not_the_sum_of_their_numbers() -> None:
    assert r"\boxed{22 km + 1 cm}" in completions("23 cm", "unit")


def test_the_digits_of_a_number_are_no_power() -> None:
    assert r"\boxed{2**3}" in completions("23", "joined digits")


def test_the_right_letter_stands_beside_another_text() -> None:
    texts = completions("A", "letter and text", ("12 cm", "15 cm"))
    assert "<answer>A. 15 cm</answer>" in texts
    assert "<answer>B. 12 cm</answer>" in texts


def test_options_that_are_letters_get_no_other_text() -> None:
    assert "letter and text" not in kinds("B", ("A", "B", "C"))


def test_options_that_are_letters_of_others_are_skipped() -> None:
    assert attacks("A", ("B", "A", "C")) == []


def test_none_of_these_is_not_denied_by_listing() -> None:
    assert "several options" not in kinds("C", ("3", "5", "None of these"))


def test_refusals_are_no_attack_where_nothing_can_be_determined() -> None:
    choices = ("12", "15", "cannot be determined")
    assert not {"refusal", "empty"} & kinds("C", choices)


def test_a_minute_of_a_time_is_moved() -> None:
    texts = completions("2:40", "clock")
    assert {r"\boxed{1:20}", "The clock shows 2:45.", r"\boxed{3:40}"} <= texts


def test_attacks_are_the_same_each_time() -> None:
    assert attacks("23") == attacks("23")


@pytest.mark.parametrize(
    "gold", ["(" * 5000, "\\frac{" * 3000, "9" * 100_000, "x" * 50_000, "\x00", "1/0", "😀"]
)
def test_a_hostile_gold_raises_nothing(gold: str) -> None:
    attacks(gold)
    attacks("A", (gold, "2"))
