"""Rules in a file that is named without a function."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rewards import RuleError, get_rule
from rewards.rule_files import rule_names

SOURCE = """
raise RuntimeError("importing the file runs this")

def helper(text): ...
def _private(completion, example): ...
def by_shape(text, row): ...
def by_parameter(completion, example, longest=3): ...
async def later(completion, example): ...
def three(a, b, c): ...
@rule("clock-12h")
def clock(completion, example): ...
@rewards.rule
def own_name(completion, example): ...
class Thing:
    def method(self, completion): ...
"""


def test_the_functions_that_can_be_rules_are_listed_the_likeliest_first() -> None:
    assert rule_names(SOURCE) == ["clock-12h", "own_name", "by_parameter"]


def test_functions_of_two_parameters_are_listed_where_no_other_can_be_a_rule() -> None:
    assert rule_names("def helper(text): ...\ndef by_shape(text, row): ...") == ["by_shape"]


@pytest.mark.parametrize("end", ["", ":"])
def test_a_path_without_a_function_names_the_functions_and_the_command(tmp_path: Path, end: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    command = f"mm-cpgd rewards test {file}:clock-12h CASES.jsonl"
    with pytest.raises(RuleError, match=re.escape(command)) as raised:
        get_rule(f"{file}{end}")
    assert f"write {file}:clock-12h (or own_name, by_parameter)" in str(raised.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no function that can be a rule; write one: def rule"),
        ("def (", "cannot be read as Python: .*; fix the file"),
        ("\0", "cannot be read as Python"),
    ],
)
def test_a_file_without_rules_says_what_to_write(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(RuleError, match=message):
        get_rule(str(tmp_path / "mine.py"))


def test_a_missing_file_without_a_function_is_named() -> None:
    with pytest.raises(RuleError, match=r"there is no file .*nowhere\.py; a rule is named"):
        get_rule("nowhere.py")
