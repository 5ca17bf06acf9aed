"""Extraction of the final answer from a completion."""

from __future__ import annotations

import pytest

from rewards import extract_answer, verify

FOUND = [
    ("<think>maybe 3</think><answer>4</answer>", "4"),
    ("<answer>1</answer> no, <answer>2</answer>", "2"),
    ("<answer>so \\boxed{7}</answer>", "7"),
    ("<answer>The answer is 12 cm.</answer>", "12 cm"),
    ("<answer>5", "5"),
    (r"first \boxed{1}, then \boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
    (r"x: \boxed{1}, \boxed{2} and $\boxed{3}$", "1, 2, 3"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\boxed{5} and \boxed{never closed", "5"),
    ("<think>x</think>The answer is 5. The end", "5"),
    ("The answer is 0.5.", "0.5"),
    ("The final answer is: **B**", "B"),
    ("所以答案是 12。", "12"),
    ("故选 C", "C"),
    ("Answer: $$x=2$$", "$$x=2$$"),
    ("We get $x=1$ and then $y=2$.", "y=2"),
    (r"hence \(3\pi\)", r"3\pi"),
    ("We add and obtain **73** in the end", "73"),
    ("The picture that shows the area is (C).", "(C)"),
    ("42", "42"),
]
NOTHING = [
    "",
    "   \n ",
    "<think>the answer is 5</think>",
    "<think>the answer is \\boxed{5}",
    "<answer> </answer>",
    "\\boxed{}",
    "no formula here\nand no answer either, only a story that goes on for a while without saying anything",
]


@pytest.mark.parametrize(("completion", "answer"), FOUND)
def test_the_final_answer_is_found(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


@pytest.mark.parametrize("completion", NOTHING)
def test_a_missing_answer_is_none(completion: str) -> None:
    assert extract_answer(completion) is None


def test_text_inside_think_is_never_an_answer_even_when_the_opening_tag_was_in_the_prompt() -> None:
    assert extract_answer("so \\boxed{5}</think> It is \\boxed{6}") == "6"


def test_a_tag_takes_precedence_over_a_box_outside_of_it() -> None:
    assert extract_answer("<answer>1</answer> \\boxed{2}") == "1"


@pytest.mark.parametrize(
    "completion",
    [
        "So the sum is\nso it will be 158 + LK.",
        "Therefore we pay 158 * n coins.",
        "Thus there are n - 158 left.",
    ],
)
def test_a_term_of_an_expression_in_a_sentence_is_no_answer(completion: str) -> None:
    assert not verify(completion, "158").score


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"\boxed{40}. Therefore, the answer is (C).", "(C)"),
        (r"\boxed{2} \quad \text{and} \quad \boxed{3}", "2, 3"),
        (r"\boxed{2}, so the next step gives \boxed{3}", "3"),
        ("Final Answer: The volume of $ABCD$ is 120. I hope it is correct.", "120"),
        ("With $d = 90/n$. Therefore, there are 12 sequences that fit.", "12"),
        ("The answer is 5.<|im_end|>\n<|im_start|>user The answer is 6", "5"),
        ("所以，答案是 7。", "7"),
        (r"It costs $\$5$.", r"\$5"),
        ("The answer is $5!$.", "$5!$"),
    ],
)
def test_the_final_answer_of_a_longer_text_is_found(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer
