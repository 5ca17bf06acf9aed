"""Rules in examples/rewards: each passes its cases, and its options do what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mm_cpgd.cli import main as cli
from rewards import Status, get_rule
from rewards.example import RewardExample
from tests.paths import DOCS, ROOT

FOLDER = ROOT / "examples" / "rewards"
RULES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_an_example_passes_its_cases(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = file.with_name(f"{file.stem}_cases.jsonl")
    monkeypatch.setattr(sys, "argv", ["mm-cpgd", "rewards", "test", f"{file}:{file.stem}", str(cases)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, capsys.readouterr().out


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_an_example_is_named_in_the_documents_with_its_command(file: Path) -> None:
    command = (
        f"mm-cpgd rewards test examples/rewards/{file.name}:{file.stem} "
        f"examples/rewards/{file.stem}_cases.jsonl"
    )
    assert command in (DOCS / "rewards.md").read_text(encoding="utf-8")
    assert command in file.read_text(encoding="utf-8")


def status(name: str, gold: str, answer: str, **options: object) -> Status:
    rule = get_rule(f"{FOLDER / name}.py:{name}", options)
    return rule(f"<answer>{answer}</answer>", RewardExample(gold)).status


@pytest.mark.parametrize(
    ("gold", "answer", "tolerance", "right"),
    [
        ("3:05", "3:07", 2, Status.CORRECT),
        ("3:05", "3:03", 2, Status.CORRECT),
        ("3:05", "3:08", 2, Status.WRONG),
        ("23:59", "00:01", 2, Status.CORRECT),
        ("3:05", "3:05:30", 0.5, Status.CORRECT),
    ],
)
def test_the_tolerance_of_a_clock_is_in_minutes(
    gold: str, answer: str, tolerance: float, right: Status
) -> None:
    assert status("clock", gold, answer, tolerance=tolerance) is right


def test_a_clock_of_24_hours_tells_the_halves_of_the_day_apart() -> None:
    assert status("clock", "3:05", "15:05", hours=12) is Status.CORRECT
    assert status("clock", "3:05", "15:05", hours=24) is Status.WRONG
    assert status("clock", "15:05", "3:05 pm", hours=24) is Status.CORRECT


@pytest.mark.parametrize(("order", "right"), [("day first", Status.CORRECT), ("month first", Status.WRONG)])
def test_the_order_of_a_date_of_numbers_is_an_option(order: str, right: Status) -> None:
    assert status("date", "2020-06-05", "5/6/2020", order=order) is right
    assert status("date", "5/6/2020", "5 June 2020", order=order) is right


@pytest.mark.parametrize("name", ["clock", "date", "chess_move"])
@pytest.mark.parametrize("text", ["1" * 15_000, "the " * 4_000, "1. " * 5_000, ": " * 5_000, "٣:٠٥"])
def test_a_hostile_answer_is_judged_without_an_error(name: str, text: str) -> None:
    gold = {"clock": "3:06", "date": "2020-05-05", "chess_move": "Nf3"}[name]
    assert status(name, gold, text) in (Status.UNPARSABLE_ANSWER, Status.WRONG)
