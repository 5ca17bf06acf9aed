"""The bench on rules whose faults are known, and on the rule "accuracy"."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data import load_examples
from rewards import RuleError
from rewards.attack import Report, attack
from rewards.example import RewardExample
from tests.paths import DATASETS
from tests.rewards.attack.golds import GOLDS

EXAMPLES = [RewardExample(gold, choices) for gold, choices in GOLDS]
RULES = r"""
def gullible(completion, example):
    return example.answer in completion

def strict(completion, example):
    gold = example.answer
    return completion in (gold, f"\\boxed{{{gold}}}", f"<answer>{gold}</answer>")

def last_number(completion, example):
    import re
    return re.findall(r"\d+", completion)[-1:] == [example.answer]

def half(completion, example):
    return 0.5

def broken(completion, example):
    raise KeyError(completion)

def never(completion, example):
    return 0
"""
# Of real golds, few options that consist of others' words are left.
MAX_SHARE_PAID = 2e-4
# Under tests.paths.DATASETS: the columns of the gold answer and of the options, where there are some.
DATA = {
    "k12/k12.json": ("answer", None), "mathvista/testmini.json": ("answer", "choices"),
    "mathvision/test.jsonl": ("answer", "options"), "wemath/testmini.json": ("answer", None),
    "tabmwp/problems_dev1k.json": ("answer", "choices"),
}  # fmt: skip


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.py"
    file.write_text(RULES)
    return file


def test_a_rule_that_pays_for_the_gold_answer_anywhere_is_caught(rules: Path) -> None:
    report = attack(f"{rules}:gullible", EXAMPLES, per_kind=None)
    caught = set(report.paid_by_kind())
    assert {
        "negation",
        "hedge",
        "list",
        "retraction",
        "refusal",
        "outside the answer",
        "false chain",
    } <= caught
    assert {"scale word", "several options", "look-alike", "contradiction", "about something else"} <= caught


def test_a_rule_that_pays_only_for_the_exact_text_is_not_accused(rules: Path) -> None:
    report = attack(f"{rules}:strict", EXAMPLES, per_kind=None)
    assert report.paid == []
    assert report.right == report.golds == len(GOLDS)


def test_a_rule_that_reads_the_last_number_is_caught_by_its_kinds(rules: Path) -> None:
    report = attack(f"{rules}:last_number", [RewardExample("40"), RewardExample("7")], per_kind=None)
    assert {"about something else", "negation", "comparison"} <= set(report.paid_by_kind())
    assert "retraction" in report.tried


def test_scores_below_the_limit_are_not_paid(rules: Path) -> None:
    assert attack(f"{rules}:half", EXAMPLES[:3]).paid == []
    report = attack(f"{rules}:half", EXAMPLES[:3], paid_from=0.5)
    assert len(report.paid) == report.tried.total()


def test_a_rule_that_raises_is_counted_by_status(rules: Path) -> None:
    report = attack(f"{rules}:broken", EXAMPLES[:3])
    assert dict(report.statuses) == {"error": report.tried.total()}


def test_a_rule_that_pays_nothing_pays_no_gold_answer_either(rules: Path) -> None:
    assert attack(f"{rules}:never", EXAMPLES[:5]).right == 0


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(RuleError, match="no reward rule"):
        attack("acuracy", EXAMPLES[:1])


def test_the_draw_depends_on_the_seed_alone(rules: Path) -> None:
    def drawn(seed: int) -> list[str]:
        return [one.attack.completion for one in attack(f"{rules}:gullible", EXAMPLES[:9], seed=seed).paid]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_no_more_of_a_kind_than_asked_are_tried(rules: Path) -> None:
    report = attack(f"{rules}:never", [RewardExample("23")], per_kind=3)
    assert max(report.tried.values()) == 3


def test_golds_that_cannot_be_attacked_are_counted(rules: Path) -> None:
    report = attack(f"{rules}:never", [RewardExample("any number (not unique)"), RewardExample("4")])
    assert (report.golds, report.skipped) == (1, 1)


@pytest.fixture(scope="module")
def on_generated_rows() -> Report:
    return attack("accuracy", load_examples("generated:all", limit=2000).examples)


def test_accuracy_pays_every_generated_gold_answer_as_itself(on_generated_rows: Report) -> None:
    assert on_generated_rows.right == on_generated_rows.golds == 2000


def test_accuracy_pays_for_no_attack_on_2000_generated_golds(on_generated_rows: Report) -> None:
    assert on_generated_rows.paid_by_kind() == {}


def test_accuracy_pays_for_no_attack_on_golds_of_every_form() -> None:
    assert attack("accuracy", EXAMPLES, per_kind=None).paid_by_kind() == {}


def real_examples(file: str) -> list[RewardExample]:
    text, (answer, options) = (DATASETS / file).read_text(encoding="utf-8"), DATA[file]
    rows = [json.loads(line) for line in text.splitlines()] if file.endswith("jsonl") else json.loads(text)
    listed = list(rows.values()) if isinstance(rows, dict) else rows
    return [RewardExample(row[answer], tuple(row.get(options) or ())) for row in listed]


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("file", DATA)
def test_accuracy_pays_for_no_attack_on_real_golds(file: str) -> None:
    if not (DATASETS / file).exists():
        pytest.skip(f"the real data is missing: {DATASETS / file}")
    report = attack("accuracy", real_examples(file))
    assert report.golds > 400
    assert report.right > 0.99 * report.golds
    assert len(report.paid) <= MAX_SHARE_PAID * report.tried.total(), report.paid
