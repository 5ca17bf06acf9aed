"""Verdicts on complete completions: status, score, reason."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from rewards import Status, verify, verify_many
from rewards.extract import extract_answer

OPEN_GOLDS = [
    "$$2.2$$ (not unique, any value close to it is acceptable)",
    "$$BD=CE$$ (not unique)",
    "The frequency of exceeding the standard is 1-75%, so the number of households is 20",
    "答案不唯一",
    "",
    "9" * 5000,
]


@pytest.mark.parametrize("gold", OPEN_GOLDS)
@pytest.mark.parametrize("completion", ["\\boxed{1}", "nothing at all\n" * 20, "<answer>2.2</answer>"])
def test_an_unparsable_gold_is_never_right_and_never_wrong(completion: str, gold: str) -> None:
    verdict = verify(completion, gold)
    assert verdict.score is None
    assert verdict.status is Status.UNPARSABLE_GOLD
    assert "gold" in verdict.reason


def test_an_unparsable_gold_is_not_even_equal_to_itself() -> None:
    gold = "any value (not unique)"
    assert verify(f"\\boxed{{{gold}}}", gold).score is None


def test_an_answer_in_words_to_a_gold_in_numbers_is_unparsable_and_wrong() -> None:
    verdict = verify("<answer>I cannot see the picture</answer>", "5")
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)


def test_no_answer_scores_zero_and_says_so() -> None:
    verdict = verify("<think>it is 5</think>", "5")
    assert (verdict.score, verdict.status, verdict.extracted) == (0.0, Status.NO_ANSWER, None)


def test_the_first_argument_is_the_completion_and_the_second_the_gold() -> None:
    assert verify("long reasoning, so \\boxed{4}", "4").score == 1.0
    assert verify("4", "long reasoning that gives 4 in the very end of it all").score is None


def test_the_verdict_carries_what_was_extracted_and_why() -> None:
    verdict = verify("It is \\boxed{5}", "6")
    assert (verdict.status, verdict.extracted, verdict.reason) == (Status.WRONG, "5", "5 is not 6")


def test_a_verdict_from_another_thread_is_the_same() -> None:
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(verify(r"\boxed{\sin 2x}", r"2\sin x\cos x")))
    thread.start()
    thread.join()
    assert verdicts[0].status is Status.CORRECT


def test_in_process_checking_gives_the_same_verdicts() -> None:
    for answer, gold in [(r"\sin 2x", r"2\sin x\cos x"), ("x+1", "x+2"), (r"\sqrt{12}", r"2\sqrt3")]:
        box = f"\\boxed{{{answer}}}"
        assert verify(box, gold, timeout=None).score == verify(box, gold).score


def test_many_verdicts_keep_their_order() -> None:
    completions = [f"\\boxed{{{i}+x-x}}" for i in range(20)]
    golds = [str(i if i % 3 else i + 1) for i in range(20)]
    scores = [verdict.score for verdict in verify_many(completions, golds)]
    assert scores == [float(i % 3 != 0) for i in range(20)]


def test_lengths_that_differ_are_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match="2 completions, 1 golds"):
        verify_many(["a", "b"], ["a"])


CHOICES = ("12 cm", r"$\frac{1}{2}$", "5(\\sqrt{5}-2)", "none of these")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("B", 1.0),
        ("(B)", 1.0),
        ("b", 1.0),
        (r"\text{B}", 1.0),
        ("B. 1/2", 1.0),
        ("Option B", 1.0),
        ("1/2", 1.0),
        ("0.5", 1.0),
        ("A", 0.0),
        ("A or B", 0.0),
        ("(A), (B), and (C)", 0.0),
        ("(A),(B),(C),(D)", 0.0),
        ("ABCD", 0.0),
        ("12", 0.0),
        ("seventeen", 0.0),
    ],
)
def test_a_choice_is_read_by_letter_words_or_value_and_only_one_counts(answer: str, score: float) -> None:
    assert verify(f"<answer>{answer}</answer>", "B", choices=CHOICES).score == score


@pytest.mark.parametrize("answer", ["A or B", "(A), (B), and (C)", "(A),(B)", "A B", "A, B, C, D", "AB"])
def test_naming_the_right_option_among_others_is_wrong(answer: str) -> None:
    assert verify(f"<answer>{answer}</answer>", "A", choices=CHOICES).score == 0.0


def test_the_value_of_an_option_may_need_algebra() -> None:
    assert verify(r"\boxed{5\sqrt{5}-10}", "C", choices=CHOICES).score == 1.0


def test_a_gold_that_is_an_options_text_accepts_its_letter() -> None:
    assert verify("<answer>D</answer>", "none of these", choices=CHOICES).score == 1.0


def test_options_that_are_letters_themselves_are_read_by_their_text() -> None:
    assert verify("<answer>B</answer>", "B", choices=("B", "A")).score == 1.0
    assert verify("<answer>A</answer>", "B", choices=("B", "A")).score == 0.0


def test_a_lone_letter_is_compared_as_a_letter_without_knowing_the_options() -> None:
    assert verify("\\boxed{(D) 49}", "D").score == 1.0
    assert verify("\\boxed{C or D}", "D").score == 0.0


def test_a_capital_inside_a_gold_answer_does_not_make_it_multiple_choice() -> None:
    assert verify("\\boxed{A}", "AC=BD").score == 0.0
    assert verify("\\boxed{C}", r"$\angle C=40^\circ$").score == 0.0


def test_hidden_characters_do_not_change_an_answer() -> None:
    assert extract_answer("\\boxed{5\u200b}") is not None
    assert verify("\\boxed{5\u200b}", "5").score == 1.0
    assert verify("\\boxed{\u202e21}", "12").score == 0.0


def test_importing_and_cheap_verdicts_load_neither_sympy_nor_torch() -> None:
    code = (
        "import sys, rewards; assert rewards.verify('\\\\boxed{1/2}', '0.5').score == 1;"
        "rewards.list_rules();"
        "bad = {'sympy', 'torch', 'numpy', 'data', 'mm_cpgd', 'eval'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
