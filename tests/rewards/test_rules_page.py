"""Table of rules in docs/rewards.md against the rules and options of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from rewards import get_rule, list_rules
from rewards.example import RewardExample
from rewards.registry import find_rule
from tests.paths import DOCS

PAGE = (DOCS / "rewards.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*)\|$", PAGE, flags=re.MULTILINE))
RULES = [name for name in list_rules() if not find_rule(name)[1].__module__.startswith(("tests.", "_"))]


def test_the_table_has_every_rule_in_order() -> None:
    documented = [name for name in ROWS if name in RULES]
    assert documented == sorted(RULES)


@pytest.mark.parametrize("name", RULES)
def test_the_table_names_every_option_of_a_rule(name: str) -> None:
    options = list(inspect.signature(find_rule(name)[1]).parameters)[2:]
    assert sorted(re.findall(r"`(\w+)`", ROWS[name])) == sorted(options)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_explains_every_option(name: str) -> None:
    function = find_rule(name)[1]
    options = list(inspect.signature(function).parameters)[2:]
    explained = re.findall(r"^    (\w+):", inspect.getdoc(function) or "", flags=re.MULTILINE)
    assert set(options) <= set(explained)


CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def values(block: str) -> dict[str, object]:
    """Run a block of the page; return the value of each expression that has a comment, by the comment."""
    names: dict[str, object] = {}
    found = {}
    for line in block.splitlines():
        code, _, comment = line.partition("  # ")
        if comment and not re.match(r"\w+ = ", code):
            found[comment] = eval(code, names)
        else:
            exec(line, names)
    return found


@pytest.mark.parametrize("opening", ["from fractions import", "from rewards import get_rule"])
def test_calls_on_the_page_have_the_values_that_it_states(opening: str) -> None:
    (block,) = [code for code in CODE if code.startswith(opening)]
    for comment, value in values(block).items():
        assert str(value) == comment.partition(":")[0], comment


def test_the_rule_on_the_page_pays_for_its_answer_alone(tmp_path: Path) -> None:
    (block,) = [code for code in CODE if code.startswith("# rules/colour.py")]
    (tmp_path / "colour.py").write_text(block)
    colour = get_rule(f"{tmp_path / 'colour.py'}:colour", {"partial": 0.5})
    given = {"red": 1.0, "Red.": 1.0, "dark red": 0.5, "not red": 0.0, "red or blue": 0.0}
    scores = {text: colour(f"<answer>{text}</answer>", RewardExample("red")).score for text in given}
    assert scores == given
