"""``mm-cpgd rewards attack``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_cpgd.cli import main as cli

Ended = tuple[int, str, str]

RULES = """
def gullible(completion, example):
    return example.answer in completion

def strict(completion, example):
    return completion == f"<answer>{example.answer}</answer>"

def never(completion, example):
    return 0
"""


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a command; return its exit status, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", "rewards", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.py"
    file.write_text(RULES)
    return file


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    golds = ["4", "green", "$y=2x+1$", "any number (not unique)"]
    file.write_text("".join(json.dumps({"question": f"{g}?", "right": g}) + "\n" for g in golds))
    return file


def test_a_rule_that_pays_for_attacks_ends_with_status_1_and_a_table(
    run_command: Callable[..., Ended], rules: Path, rows: Path, tmp_path: Path
) -> None:
    file = tmp_path / "paid.json"
    status, out, _ = run_command(
        "attack", f"{rules}:gullible", rows, "--column", "answer=right", "--per-kind", "0", "--json", file
    )
    written = json.loads(file.read_text())
    assert status == 1
    assert (written["rows"], written["attacked"], written["skipped"]) == (4, 3, 1)
    assert written["paid"] == len(written["paid_attacks"]) == sum(one["paid"] for one in written["kinds"])
    assert written["tried"] == sum(one["tried"] for one in written["kinds"])
    assert {"gold", "completion", "kind", "why", "reason"} <= set(written["paid_attacks"][0])
    assert "negation" in out
    assert "all" in out


def test_a_rule_that_pays_for_none_ends_with_status_0(
    run_command: Callable[..., Ended], rules: Path, rows: Path
) -> None:
    status, out, _ = run_command("attack", f"{rules}:strict", rows, "--column", "answer=right")
    assert status == 0
    assert "pays 3 of them as themselves" in out


def test_a_rule_that_never_pays_is_said_to_show_nothing(
    run_command: Callable[..., Ended], rules: Path, rows: Path
) -> None:
    status, out, _ = run_command("attack", f"{rules}:never", rows, "--column", "answer=right")
    assert status == 0
    assert "shows nothing" in out


def test_generated_rows_are_drawn_by_the_seed(
    run_command: Callable[..., Ended], rules: Path, tmp_path: Path
) -> None:
    golds = []
    for seed in (1, 1, 2):
        file = tmp_path / "paid.json"
        given = ("generated:table", "--limit", "5", "--seed", seed, "--json", file)
        run_command("attack", f"{rules}:gullible", *given)
        golds.append([one["id"] for one in json.loads(file.read_text())["paid_attacks"]])
    assert golds[0] == golds[1] != golds[2]


def test_an_unknown_rule_is_named_with_the_nearest(run_command: Callable[..., Ended], rows: Path) -> None:
    status, _, err = run_command("attack", "acuracy", rows, "--column", "answer=right")
    assert status == 2
    assert "accuracy" in err


def test_rows_whose_images_are_missing_are_attacked(
    run_command: Callable[..., Ended], rules: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "How many?", "answer": "4", "image": "lost.png"}) + "\n")
    _, out, _ = run_command("attack", f"{rules}:strict", file)
    assert "1 gold answers attacked" in out
