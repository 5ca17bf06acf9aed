"""Answers in sentences: what a sentence states is the answer, what it denies, doubts or asks is none."""

from __future__ import annotations

import pytest

from rewards import verify

STATED = [
    ("7/9", "Hence 7 out of 9."),
    ("A", "My choice is A, not C."),
    ("50", "The profit is $150 - $100 = $50."),
    ("8", "所以他一共有8个。"),
    ("4", "The answer is 3. Sorry, I meant 4."),
    ("10 m/s", "\\boxed{10}"),
    ("12", "The answer is 12 because 3*4=12."),
    ("12", "So the answer is 12, which is less than 15."),
    ("7", "The final answer is $7$. This is because $x=7$ solves it."),
    ("B", "The answer is B, since A is too small."),
    ("C", "Looking at the options, C is the only one that fits."),
    ("5", "There are not 4 but 5 apples. So the answer is 5."),
    ("5", "If x = 3, then the total is 5."),
    ("3.5", "**Answer:** $3.5$ cm"),
    ("12", "**12**"),
    ("x=2", "Therefore, $x = 2$."),
    ("yes", "Yes, it is."),
    ("no", "No, they are not equal."),
    ("4", "Thus, we have 4 solutions."),
    ("8", "Hence $2^3 = 8$."),
    ("\\frac{3}{4}", "The probability is $\\frac{3}{4}$."),
    ("15", "The area is \\(15\\) square units."),
    ("120", "= 120 degrees"),
    ("A", "**A**"),
    ("A", "A"),
    ("D", "The correct option is D."),
    ("B", "(B)"),
    ("B", "Option B"),
    ("B", "选项B正确"),
    ("C", "因此选C"),
    ("6", "答案：6"),
    ("6", "最终答案是6。"),
    ("(1,2)", "\\boxed{(1, 2)}"),
    ("3", "\\boxed{x=3}"),
    ("1/2", "\\boxed{0.5}"),
    ("36\\pi", "The volume is $36\\pi$ cubic units."),
    ("25", "Answer: 25%"),
    ("2", "$\\boxed{2}$ is the final answer."),
    ("2", "\\boxed{2}. Let me double check: 1+1=2. Yes, that is correct."),
    ("2", "\\boxed{2}\n\nWait, let me verify this: 1+1=2. Good."),
    ("2", "The answer is 2. Actually, this makes sense."),
    ("9", "We can't have 10, so the answer is 9."),
    ("9", "It is impossible to get more, so the maximum is 9."),
    ("24", "The number of ways is 4! = 24."),
    ("5", "x = 5 or x = -5, but x > 0, so x = 5"),
    ("17", "Therefore the smallest number is 17."),
    ("3", "The answer is 3 (not 4)."),
    ("3", "The answer is not 4; it is 3."),
    ("2", "I think it is 2"),
    ("2", "It must be 2."),
    ("7", "\\boxed{\\text{Answer: }7}"),
    ("5 cm", "\\boxed{5\\,\\text{cm}}"),
    ("5", "\\boxed{5\\text{ units}}"),
    ("60", "\\boxed{60^\\circ}"),
    ("1,000", "\\boxed{1000}"),
    ("0.25", "\\boxed{\\frac14}"),
    ("14", "14."),
    ("2:1", "2:1"),
    ("11", "The perimeter equals 11 cm."),
    ("3", "Three"),
    ("5", "five apples"),
    ("red", "The ball is red."),
    ("x^2+1", "f(x)=x^2+1"),
    ("C", "The answer is **(C) 18 cm**"),
    ("C", "C) 18 cm"),
]
NOT_STATED = [
    ("8", "Hence, 5 out of 8."),
    ("A", "not A, but C"),
    ("10", "The answer is at most... so 10."),
    ("2", "The number of even primes is not 2."),
    ("2", "Nobody knows if the answer is 2."),
    ("2", "Is the answer 2?"),
    ("3", "It is not true that the answer is 3."),
    ("7", "The answer is 7, unless it is 8."),
    ("7", "\\boxed{7} Oops, that is wrong. It is 8."),
    ("4", "Answer 1: 4\nAnswer 2: 5"),
    ("4", '{"answer": "4", "alternative": "5"}'),
    ("5", "5, six"),
    ("5", "The answer 5 is incorrect."),
    ("B", "The answer might be B"),
    ("B", "A or B"),
    ("B", "not B, rather C"),
    ("12", "\\boxed{\\frac{1}{0}=12}"),
]


@pytest.mark.parametrize(("gold", "completion"), STATED)
def test_what_a_sentence_states_is_its_answer(gold: str, completion: str) -> None:
    verdict = verify(completion, gold)
    assert verdict.score == 1, verdict


@pytest.mark.parametrize(("gold", "completion"), NOT_STATED)
def test_what_a_sentence_denies_doubts_or_asks_is_no_answer(gold: str, completion: str) -> None:
    verdict = verify(completion, gold)
    assert verdict.score == 0, verdict
