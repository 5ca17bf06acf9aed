"""Rules "accuracy", "exact" and "choice"."""

from __future__ import annotations

from rewards import Status, get_rule
from rewards.example import RewardExample as Example


def test_accuracy_reads_the_gold_and_the_options_of_the_example() -> None:
    accuracy = get_rule("accuracy")
    assert accuracy("<answer>2/4</answer>", Example("0.5")).score == 1.0
    assert accuracy("<answer>B</answer>", Example("yes", ("no", "yes"))).score == 1.0


def test_accuracy_takes_the_items_of_a_list_in_any_order_on_request() -> None:
    for ordered, score in ((True, 0.0), (False, 1.0)):
        rule = get_rule("accuracy", {"ordered": ordered})
        assert rule("<answer>3, 2</answer>", Example("2, 3")).score == score


def test_exact_compares_spelling_not_meaning() -> None:
    exact = get_rule("exact")
    assert exact("<answer>The Men's  event.</answer>", Example("men's event")).score == 1.0
    assert exact("<answer>0.5</answer>", Example("1/2")).score == 0.0
    assert get_rule("exact", {"normalise": False})("<answer>Yes</answer>", Example("yes")).score == 0.0


def test_choice_cannot_score_a_gold_that_names_no_option() -> None:
    verdict = get_rule("choice")("<answer>A</answer>", Example("E", ("1", "2")))
    assert (verdict.score, verdict.status) == (None, Status.UNPARSABLE_GOLD)
