"""MMBench's rule without its LLM."""

from __future__ import annotations

import pytest

from eval.official.mmbench import grade, pick_option
from rewards import Status

OPTIONS = ["a red car", "a blue car", "a bus"]


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("The answer is B.", "B"),
        ("**C**", "C"),
        # A letter before the last four words is not read, unless "answer is" precedes it.
        ("B because it is clearly visible in the picture", None),
        ("The correct answer is B because it is clearly visible there", "B"),
        ("A or B", None),
        ("a blue car", "B"),
        ("it is a blue car", "B"),
        ("a red car, not a bus", None),
        ("D", None),
        ("Z", None),
        ("I can't process this file.", None),
        ("", None),
    ],
)
def test_one_letter_among_the_last_words_or_one_text_is_named(response: str, letter: str | None) -> None:
    assert pick_option(response, OPTIONS) == letter


def test_a_long_response_names_no_option_by_its_text() -> None:
    assert pick_option("a blue car " + "x" * 60, OPTIONS) is None


def test_what_the_rule_cannot_read_has_no_answer_and_says_who_could() -> None:
    verdict = grade("something with wheels", "A", OPTIONS)
    assert (verdict.score, verdict.status) == (0, Status.NO_ANSWER)
    assert "--protocol judge" in verdict.reason
