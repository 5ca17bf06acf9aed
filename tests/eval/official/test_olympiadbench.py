"""Official scoring of OlympiadBench: extraction, items, errors, accuracies."""

import subprocess
import sys
import time

import pytest

from data.example import DataError
from eval.official.olympiadbench import accuracies, extract_answer, grade, split_answer
from rewards import Status
from tests.paths import ROOT

PHRASE = "So the final answer is "


def right(answer, gold, **options):
    verdict = grade(answer, gold, **options)
    assert verdict.score == float(verdict.status is Status.CORRECT)
    return verdict.status is Status.CORRECT


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (PHRASE + r"\boxed{5}.", "5"),
        (rf"{PHRASE}\boxed{{1}}. No. {PHRASE}\boxed{{2}}", "1,2"),
        (rf"{PHRASE}\boxed{{1}}" + "\n" + rf"{PHRASE}\boxed{{2}}" + "\nThat was $7$.", "2"),
        (r"First \boxed{3}, then \boxed{x^{2}}", "3,x^{2}"),
        ("It is $4$ and\nhence $5$ or $6$.", "5,6"),
        ("7", "7"),
        (rf"{PHRASE}\boxed{{\left(1, 30^\circ\right)}}$", "(1, 30)"),
        (PHRASE + r"\boxed{x \in [0,1]}", "[0,1]"),
        (PHRASE + r"\boxed{5 \mathrm{~m}}", "5 m"),
        (PHRASE + r"\boxed{\pi \approx 3}", r"\pi = 3"),
        (PHRASE + r"\boxed{50\%}", "50"),
        (r"\boxed{5", None),
        ("", None),
        (PHRASE + r"\boxed{}", None),
    ],
)
def test_the_answer_is_found_and_its_decoration_removed(completion, answer):
    assert extract_answer(completion) == answer


def test_the_chinese_phrase_counts_in_chinese_only():
    completion = r"由 $x=1$ 得所以最终答案是\boxed{8}。" + "\n" + r"\boxed{9}"
    assert extract_answer(completion, chinese=True) == "8"
    assert extract_answer(completion) == "8,9"


def test_commas_cut_outside_of_round_and_square_brackets_only():
    assert split_answer("1, (2,3), [4,5), f(6,7),") == ["1", "(2,3)", "[4,5)", "f(6,7)"]


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("3,1,2", "1,2,3", True),
        (r"\frac12, \frac13", r"\frac13, 0.5", True),
        ("1,2", "1,2,3", False),
        ("1,2,3", "1,2", False),
        ("1,1,2", "1,2,2", False),
        (r"\boxed{1} and \boxed{2}", "2,1", True),
    ],
)
def test_items_are_paired_in_any_order_each_once(answer, gold, equal):
    assert right(answer, gold) is equal


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        (r"\pm 2", "2,-2", True),
        ("-2, 2", r"$\pm 2$", True),
        (r"1 \pm \sqrt{2}", r"1-\sqrt{2},1+\sqrt{2}", True),
        ("± 2", r"\pm 2", True),
        (r"\pm 2", "2", False),
        ("2", r"\pm 2", False),
    ],
)
def test_plus_minus_is_two_items(answer, gold, equal):
    assert right(answer, gold) is equal


def test_the_error_does_not_apply_to_tuples():
    assert right("(1.1, 2)", "(1, 2)", error="0.2", answer_type="Tuple") is False
    assert right("(1.1, 2)", "(1, 2)", error="0.2", answer_type="Interval") is True


@pytest.mark.parametrize("error", ["small", "-1", "nan", "inf", "0.1,x"])
def test_an_error_that_is_no_number_is_named(error):
    with pytest.raises(DataError, match="nonnegative numbers"):
        grade("1", "2", error=error)


@pytest.mark.parametrize(("answer", "equal"), [("能", True), ("不能", False)])
def test_chinese_words_are_right_as_text(answer, equal):
    assert right(f"所以最终答案是{answer}。", "能", chinese=True) is equal


def test_chinese_beside_a_formula_does_not_count():
    assert right(r"所以最终答案是\boxed{5米}", "5.0", chinese=True)


@pytest.mark.parametrize(
    "text", ["10^{10^{10^{10}}}", r"\frac{1}{", "I do not know", "9" * 3000, "1" + ",1" * 900]
)
def test_an_unreadable_answer_is_wrong_and_quickly_decided(text):
    start = time.perf_counter()
    verdict = grade(text, "10")
    assert verdict.score == 0.0
    assert time.perf_counter() - start < 1


def test_model_text_is_never_executed(tmp_path):
    target = tmp_path / "made"
    grade(rf"\boxed{{__import__('os').system('touch {target}')}}", "1")
    grade(rf"\boxed{{x=open('{target}','w')}}", "x=1")
    assert not target.exists()


def test_a_missing_answer_says_so():
    assert grade("", "1").status is Status.NO_ANSWER


def test_the_micro_average_weights_subsets_by_their_rows():
    overall, groups = accuracies([("a", 1.0), ("a", 0.0), ("a", 0.0), ("b", 1.0)])
    assert overall.share == 0.5
    assert {name: one.share for name, one in groups.items()} == {"a": pytest.approx(1 / 3), "b": 1.0}


def test_a_missing_subset_has_no_accuracy_and_changes_nothing():
    overall, groups = accuracies([("a", 1.0)], subsets=["a", "b"])
    assert (overall.share, groups["a"].share, groups["b"].share, groups["b"].total) == (1.0, 1.0, None, 0)


def test_nothing_divides_by_zero_without_rows():
    overall, groups = accuracies([])
    assert (overall.share, overall.total, groups) == (None, 0, {})


def test_the_rules_of_benchmarks_import_no_torch():
    code = (
        "import sys, types; package = types.ModuleType('eval'); package.__path__ = ['eval'];"
        "sys.modules['eval'] = package;"
        "import eval.official.wemath, eval.official.olympiadbench; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
