"""Table of rules in docs/rewards.md against the rules and options of the code."""

from __future__ import annotations

import inspect
import re

import pytest

from rewards import list_rules
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
