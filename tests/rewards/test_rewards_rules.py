"""The built-in rules, finding rules, and writing one."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rewards import RewardSum, RuleError, Status, Verdict, get_rule, list_rules, rule


@dataclass(frozen=True)
class Row:
    answer: str
    choices: tuple[str, ...] = ()


GOOD = "<think>2+2</think>\n<answer>4</answer>\n"
BAD_FORMATS = [
    "4",
    "<answer>4</answer>",
    "<answer>4</answer><think>2+2</think>",
    "<think>2+2</think><think>again</think><answer>4</answer>",
    "<think>2+2</think><answer>4</answer><answer>4</answer>",
    "<think>2+2</think> so <answer>4</answer>",
    "well <think>2+2</think><answer>4</answer>",
    "<think>2+2</think><answer>4</answer> done",
    "<think> </think><answer>4</answer>",
    "<think>2+2</think><answer></answer>",
    "<think>2+2<answer>4</answer></think>",
    "<think>2+2</think><answer>4",
    "<answer>",
    "",
]


def test_the_format_holds_with_both_tags_filled_in_order() -> None:
    assert get_rule("format")(GOOD, Row("4")).score == 1.0


@pytest.mark.parametrize("completion", BAD_FORMATS)
def test_any_other_format_scores_zero_with_a_reason(completion: str) -> None:
    verdict = get_rule("format")(completion, Row("4"))
    assert verdict.score == 0.0
    assert verdict.reason


def test_accuracy_reads_the_gold_and_the_options_of_the_example() -> None:
    accuracy = get_rule("accuracy")
    assert accuracy("<answer>2/4</answer>", Row("0.5")).score == 1.0
    assert accuracy("<answer>B</answer>", Row("yes", ("no", "yes"))).score == 1.0


def test_exact_compares_spelling_not_meaning() -> None:
    exact = get_rule("exact")
    assert exact("<answer>The Men's  event.</answer>", Row("men's event")).score == 1.0
    assert exact("<answer>0.5</answer>", Row("1/2")).score == 0.0
    assert get_rule("exact", {"normalise": False})("<answer>Yes</answer>", Row("yes")).score == 0.0


def test_choice_cannot_score_a_gold_that_names_no_option() -> None:
    verdict = get_rule("choice")("<answer>A</answer>", Row("E", ("1", "2")))
    assert (verdict.score, verdict.status) == (None, Status.UNPARSABLE_GOLD)


def test_every_built_in_rule_is_listed_with_what_it_does() -> None:
    listed = list_rules()
    assert {"accuracy", "choice", "exact", "format"} <= set(listed)
    assert all(listed.values())


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(RuleError, match="no reward rule 'acuracy': did you mean 'accuracy'"):
        get_rule("acuracy")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(RuleError, match="no option 'time_out': did you mean 'timeout'"):
        get_rule("accuracy", {"time_out": 1})


def test_an_option_to_a_rule_that_takes_none_says_so() -> None:
    with pytest.raises(RuleError, match="it takes none"):
        get_rule("choice", {"strict": True})


def test_a_name_that_is_taken_cannot_be_registered_again() -> None:
    with pytest.raises(RuleError, match="exists already"):
        rule("accuracy")(lambda completion, example: 1.0)


@pytest.fixture
def rule_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(
        "def brevity(completion, example, longest=10, *, scale):\n"
        "    return scale if len(completion) <= longest else 0\n"
        "def broken(completion, example):\n"
        "    raise KeyError('colour')\n"
        "def text(completion, example):\n"
        "    return 'good'\n"
        "def alone(completion):\n"
        "    return 1\n"
    )
    return file


def test_a_rule_in_a_users_file_becomes_a_verdict(rule_file: Path) -> None:
    brevity = get_rule(f"{rule_file}:brevity", {"longest": 3, "scale": 0.5})
    verdict = brevity("abc", Row("x"))
    assert (verdict.score, verdict.status) == (0.5, Status.PARTIAL)
    assert brevity("abcd", Row("x")).status is Status.WRONG


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("brevity", {"longset": 3, "scale": 1}, "did you mean 'longest'"),
        ("brevity", {}, "needs the option 'scale'"),
        ("brevty", {}, "did you mean 'brevity'"),
        ("alone", {}, "must take a completion and an example"),
    ],
)
def test_a_wrong_reference_to_a_users_file_says_what_to_do(
    rule_file: Path, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RuleError, match=message):
        get_rule(f"{rule_file}:{name}", options)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(RuleError, match=r"there is no file .*nowhere\.py"):
        get_rule("nowhere.py:f")


def test_a_file_that_cannot_be_imported_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1/0")
    with pytest.raises(RuleError, match="ZeroDivisionError"):
        get_rule(f"{tmp_path / 'bad.py'}:f")


def test_the_sum_weighs_each_component_and_keeps_it_apart() -> None:
    total = RewardSum([("accuracy", 1.0, {}), ("format", 0.5, {})])
    right, wrong = total.score([GOOD, "\\boxed{5}"], [Row("4"), Row("4")])
    assert (right.total, wrong.total) == (1.5, 0.0)
    assert {name: verdict.score for name, verdict in right.components.items()} == {
        "accuracy": 1.0,
        "format": 1.0,
    }


def test_a_component_without_a_score_takes_the_completion_out() -> None:
    rewards = RewardSum([("accuracy", 1.0, {}), ("format", 0.5, {})])
    (scored,) = rewards.score([GOOD], [Row("any (not unique)")])
    assert scored.total is None
    assert scored.components["format"].score == 1.0


def test_a_component_of_weight_zero_is_logged_and_does_not_count() -> None:
    (scored,) = RewardSum([("accuracy", 0.0, {}), ("format", 1.0, {})]).score([GOOD], [Row("(not unique)")])
    assert scored.total == 1.0
    assert scored.components["accuracy"].status is Status.UNPARSABLE_GOLD


def test_a_rule_that_raises_is_an_error_without_a_score(rule_file: Path) -> None:
    name = f"{rule_file}:broken"
    (scored,) = RewardSum([(name, 1.0, {})]).score(["x"], [Row("x")])
    assert scored.total is None
    assert scored.components["broken"].status is Status.ERROR
    assert "KeyError: 'colour'" in scored.components["broken"].reason


@pytest.mark.parametrize("value", ["good", math.nan, math.inf])
def test_a_result_that_is_no_finite_number_is_an_error(value: object) -> None:
    name = f"gives {value}"
    rule(name)(lambda completion, example: value)
    (scored,) = RewardSum([(name, 1.0, {})]).score(["x"], [Row("x")])
    assert scored.components[name].status is Status.ERROR


def test_a_rule_may_return_a_verdict_of_its_own() -> None:
    mine = Verdict(0.25, Status.PARTIAL, "a", "because")
    rule("own verdict")(lambda completion, example: mine)
    assert get_rule("own verdict")("x", Row("y")) is mine


def test_unequal_numbers_of_completions_and_examples_are_named() -> None:
    with pytest.raises(ValueError, match="2 completions but 1 examples"):
        RewardSum([("format", 1.0, {})]).score(["a", "b"], [Row("a")])


def test_no_component_and_a_component_twice_are_errors() -> None:
    with pytest.raises(RuleError, match="no reward rule is given"):
        RewardSum([])
    with pytest.raises(RuleError, match="'format' is given twice"):
        RewardSum([("format", 1.0, {}), ("format", 1.0, {})])


def test_importing_and_cheap_verdicts_load_neither_sympy_nor_torch() -> None:
    code = (
        "import sys, rewards; assert rewards.verify('\\\\boxed{1/2}', '0.5').score == 1;"
        "rewards.list_rules();"
        "bad = {'sympy', 'torch', 'numpy', 'data', 'mm_cpgd', 'eval'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
