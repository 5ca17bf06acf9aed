"""``mm-cpgd rewards``: terminal output, written files and exit status."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.cli import main as cli

Ended = tuple[int, str, str]
RIGHT = {"completion": r"\boxed{2/4}", "gold": "0.5", "expected": True}
OPTION = {"completion": "B", "gold": "yes", "choices": ["no", "yes"], "expected": 1}
OPEN = {"completion": "4", "gold": "(not unique)", "expected": None}
EMPTY = {"completion": "", "gold": "4", "expected": "no_answer"}
MISTAKEN = {"completion": "5", "gold": "4", "expected": True}


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
def cases(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any] | str) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "cases.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path / "cases.jsonl"

    return write


def test_list_shows_rules_with_their_options_from_code(run_command: Callable[..., Ended]) -> None:
    status, out, _ = run_command("list")
    assert status == 0
    assert "accuracy" in out
    assert "timeout=2.0" in out


def test_cases_that_all_come_out_right_pass(
    run_command: Callable[..., Ended], cases: Callable[..., Path]
) -> None:
    status, out, _ = run_command("test", "accuracy", cases(RIGHT, OPTION, OPEN, EMPTY), "--min-accuracy", 1)
    assert status == 0
    assert "4 of 4 right, accuracy 1.0000" in out
    assert "wrong verdicts: 0" in out


def test_accuracy_below_the_required_one_exits_with_1_and_shows_the_failing_case(
    run_command: Callable[..., Ended], cases: Callable[..., Path]
) -> None:
    file = cases(RIGHT, MISTAKEN)
    status, out, _ = run_command("test", "accuracy", file, "--min-accuracy", 0.9)
    assert status == 1
    assert "cases.jsonl:2  '5' for '4': score 1 expected, score 0 given: 5 is not 4" in out
    assert run_command("test", "accuracy", file, "--min-accuracy", 0.5)[0] == 0


def test_any_wrong_verdict_exits_with_1_unless_some_are_allowed(
    run_command: Callable[..., Ended], cases: Callable[..., Path]
) -> None:
    status, out, _ = run_command("test", "accuracy", cases(RIGHT, MISTAKEN))
    assert status == 1
    assert "1 of 2 cases failed; --min-accuracy allows a share of them" in out
    assert run_command("test", "accuracy", cases(RIGHT, OPTION))[0] == 0


def test_the_json_file_has_confusions_latency_and_every_wrong_verdict(
    run_command: Callable[..., Ended], cases: Callable[..., Path], tmp_path: Path
) -> None:
    run_command("test", "accuracy", cases(RIGHT, OPTION, MISTAKEN), "--json", tmp_path / "new" / "out.json")
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert (written["cases"], written["right"], written["accuracy"]) == (3, 2, 2 / 3)
    assert written["confusion"] == [
        {"expected": "score 1", "got": "score 0", "cases": 1},
        {"expected": "score 1", "got": "score 1", "cases": 2},
    ]
    assert [one["where"] for one in written["wrong"]] == ["cases.jsonl:3"]
    assert set(written["milliseconds"]) == {"p50", "p90", "p99", "p100"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "cases.jsonl:1 not JSON"),
        ({"completion": "4", "gold": "4"}, "cases.jsonl:1 has no 'expected'; a case has completion, gold"),
        ({**RIGHT, "expected": "maybe"}, "expected is 'maybe'; it must be true, false, a score, null"),
        ({**RIGHT, "completion": 3}, "completion is 3; it must be a text"),
        ({**RIGHT, "gold": ["a", "b"]}, "a gold answer must be a text or a number"),
        ({**RIGHT, "choices": "A or B"}, "options must be a list of texts"),
    ],
)
def test_an_invalid_case_is_one_message_and_status_2(
    run_command: Callable[..., Ended], cases: Callable[..., Path], row: Any, message: str
) -> None:
    status, _, err = run_command("test", "accuracy", cases(row))
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_an_unknown_rule_a_missing_file_and_a_bad_option_exit_with_2(
    run_command: Callable[..., Ended], cases: Callable[..., Path]
) -> None:
    file = cases(RIGHT)
    for arguments, message in (
        (("accurcy", file), "did you mean 'accuracy'"),
        (("accuracy", "nowhere.jsonl"), "nowhere.jsonl does not exist"),
        (("accuracy", file, "--option", "timeout"), "not of the form key=value"),
        (("accuracy", file, "--option", "timeout=soon"), "option 'timeout' of rule 'accuracy' is 'soon'"),
    ):
        status, _, err = run_command("test", *arguments)
        assert (status, message in err) == (2, True), err


def test_a_rule_of_the_user_that_raises_is_a_wrong_verdict_with_its_reason(
    run_command: Callable[..., Ended], cases: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def mine(completion, example): return example.meta['level'] / 0\n")
    status, out, _ = run_command("test", f"{tmp_path / 'mine.py'}:mine", cases({**RIGHT, "level": 3}))
    assert status == 1
    assert "score 1 expected, no score given: ZeroDivisionError" in out


def test_the_second_opinion_lists_where_it_differs(
    run_command: Callable[..., Ended], cases: Callable[..., Path]
) -> None:
    pytest.importorskip("math_verify")
    file = cases(RIGHT, OPTION)
    _, out, _ = run_command("test", "accuracy", file, "--second-opinion", "math-verify")
    assert "math-verify disagrees: 1" in out
    assert "cases.jsonl:2  'B' for 'yes': it rejects" in out


def test_a_second_opinion_that_is_not_installed_says_how_to_install_it(
    run_command: Callable[..., Ended], cases: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *others: Any, **named: Any) -> Any:
        if name == "math_verify":
            raise ImportError(name)
        return real(name, *others, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    status, _, err = run_command("test", "accuracy", cases(RIGHT), "--second-opinion", "math-verify")
    assert status == 2
    assert "pip install 'math-verify" in err


@pytest.fixture
def audit(
    run_command: Callable[..., Ended], cases: Callable[..., Path], tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], str]]:
    """Audit gold answers; return what is written and what is printed."""

    def run(golds: list[str], *arguments: object) -> tuple[dict[str, Any], str]:
        rows = ({"id": str(n), "question": "?", "right": gold} for n, gold in enumerate(golds))
        file, written = cases(*rows), tmp_path / "audit.json"
        status, out, _ = run_command("audit", file, "--column", "answer=right", "--json", written, *arguments)
        assert status == 0
        return json.loads(written.read_text()), out

    return run


def test_audit_counts_what_can_be_scored_by_kind(audit: Callable[..., tuple[dict[str, Any], str]]) -> None:
    written, out = audit(["4", "1/2", "x+1", "any value (not unique)", "3; 4"])
    assert (written["rows"], written["verifiable"], written["share"]) == (5, 4, 0.8)
    assert {one["kind"]: one["rows"] for one in written["kinds"]} == {
        "whole number": 1,
        "fraction": 1,
        "expression": 1,
        "list of 2": 1,
        "unreadable: an open answer": 1,
    }
    assert [(one["id"], one["status"]) for one in written["not_verifiable"]] == [("3", "unparsable_gold")]
    assert "80.0%" in out


def test_audit_calls_no_gold_verifiable_that_can_only_be_read_as_words(
    audit: Callable[..., tuple[dict[str, Any], str]],
) -> None:
    written, _ = audit([r"$$\mathcal{X}\unknown{4}$$", "parallel"])
    assert [one["verifiable"] for one in written["kinds"]] == [0, 1]
    assert [one["status"] for one in written["not_verifiable"]] == ["unparsable_gold"]


def test_audit_shows_what_right_answers_in_usual_forms_get(
    audit: Callable[..., tuple[dict[str, Any], str]],
) -> None:
    written, out = audit(["1/2", "3/4"])
    (kind,) = written["kinds"]
    tried = {one["form"]: (one["tried"], one["accepted"]) for one in kind["forms"]}
    assert tried["as a decimal"] == (2, 2)
    assert tried[r"\boxed{…}"] == (2, 2)
    assert written["refused"] == []
    assert "as a decimal" in out


def test_audit_lists_the_right_answers_that_a_rule_refuses(
    audit: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    (tmp_path / "tags.py").write_text(
        "def tags(completion, example): return completion == f'<answer>{example.answer}</answer>'\n"
    )
    written, out = audit(["4", "5"], "--rule", f"{tmp_path / 'tags.py'}:tags")
    assert written["verifiable"] == 2
    assert {one["form"] for one in written["refused"]} == {
        "\\boxed{…}", "The answer is ….", "**…**", "The answer is $…$.",
    }  # fmt: skip
    assert "2 refused, whole number, The answer is ….: cases.jsonl:1: '4' as 'The answer is 4.'" in out


def test_explain_prints_both_parsed_sides_and_the_deciding_step(run_command: Callable[..., Ended]) -> None:
    status, out, _ = run_command("explain", "--completion", r"so \boxed{2/4}", "--gold", "0.5")
    assert status == 0
    for text in ("correct, score 1", r"the last \boxed{}", "number: 1/2", "exact arithmetic"):
        assert text in out


def test_the_commands_load_no_torch(cases: Callable[..., Path]) -> None:
    code = (
        "import sys; from mm_cpgd.cli import common, main, reward_attack, reward_audit, reward_cases;"
        "bad = {'torch', 'transformers', 'sympy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
