"""Options that are part of a question's text."""

import pytest

from eval.benchmark import inline_options


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("What is x?", ()),
        ("Points A. and C.", ()),
        ("See A. below (A) 1 (B) 2", ("1", "2")),
        ("A. 4 B. 3 C. 2 ;D. 1; E. No correct answer", ("4", "3", "2", "1", "No correct answer")),
        ("A、左 B、右", ("左", "右")),
    ],
)
def test_options_are_found_however_they_are_marked(text, options):
    assert inline_options(text) == options
