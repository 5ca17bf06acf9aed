"""Construction of a judge from options: estimate, confirmation, usage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from data import Example
from eval.benchmark import Benchmark, Response
from eval.scoring.judge import JudgeError
from mm_cpgd.cli.judge import JudgeOptions, open_judge
from mm_cpgd.errors import UserError
from tests.fakes.chat_server import HttpReply, chat_reply, stub_server

CORRECT = '{"verdict": "correct", "reason": "equal"}'
EXAMPLES = [Example("1", "How long is AB?", "7 cm"), Example("2", "How long is CD?", "")]
RESPONSES = [Response("1", "It is seven centimetres."), Response("2", "5"), Response("unmatched", "6")]


def not_asked(*args: Any) -> Any:
    raise AssertionError


BENCHMARK = Benchmark("tiny", "tests", not_asked, not_asked, not_asked)


def run(options: JudgeOptions, prompts: list[str] | None = None) -> str:
    """Send these prompts to the judge; return what was printed."""
    console = Console(file=io.StringIO(), width=200)
    with open_judge(options, BENCHMARK, EXAMPLES, RESPONSES, console) as judge:
        for prompt in prompts or []:
            judge.ask(prompt)
    return console.file.getvalue()  # type: ignore[attr-defined]


def options(url: str, folder: Path, **more: Any) -> JudgeOptions:
    return JudgeOptions(url, "tiny", cache=folder / "judgements.jsonl", retries=0, **more)


def test_the_estimate_and_the_usage_are_printed(tmp_path: Path) -> None:
    with stub_server(chat_reply(CORRECT)) as stub:
        printed = run(options(stub.url, tmp_path, price_in=1e6, price_out=1e6, yes=True), ["a", "b"])
    first, last = printed.splitlines()
    assert first.startswith("judge: 1 requests (0 more replies are cached), about ")
    # 7 tokens in and 3 out each, at a price of 1 per token.
    assert last == "judge: 2 replies, 0 cached ones, 14 tokens in and 6 out, cost 20.00"


def test_a_server_on_this_machine_without_prices_needs_no_confirmation(tmp_path: Path) -> None:
    with stub_server(chat_reply(CORRECT)) as stub:
        assert "price not given" in run(options(stub.url, tmp_path))


def test_a_paid_judge_is_not_called_when_confirmation_is_impossible(tmp_path: Path) -> None:
    with stub_server(chat_reply(CORRECT)) as stub, pytest.raises(UserError, match="--yes"):
        run(options(stub.url, tmp_path, price_in=0.1))
    assert stub.asked == []


class Person(io.StringIO):
    """Terminal input with this text."""

    def isatty(self) -> bool:
        return True


def test_the_user_may_confirm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    with stub_server(chat_reply(CORRECT)) as stub:
        run(options(stub.url, tmp_path, price_in=0.1), ["a"])
    assert len(stub.asked) == 1


def test_the_user_may_decline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Person("n\n"))
    with stub_server(chat_reply(CORRECT)) as stub, pytest.raises(typer.Abort):
        run(options(stub.url, tmp_path, price_in=0.1), ["a"])
    assert stub.asked == []


def try_all(options: JudgeOptions, prompts: list[str]) -> list[str]:
    """Ask as scoring does, which continues with the next row; return the failures."""
    failures = []
    with open_judge(options, BENCHMARK, EXAMPLES, RESPONSES, Console(file=io.StringIO())) as judge:
        for prompt in prompts:
            try:
                judge.ask(prompt)
            except JudgeError as error:
                failures.append(str(error))
    return failures


def test_a_wrong_key_ends_the_command_after_one_request(tmp_path: Path) -> None:
    refused = HttpReply({"error": "no"}, 401)
    with stub_server(refused) as stub, pytest.raises(UserError, match="the key is missing"):
        try_all(options(stub.url, tmp_path), ["a", "b", "c"])
    assert len(stub.asked) == 1


def test_a_failing_server_leaves_responses_unjudged_and_the_command_continues(tmp_path: Path) -> None:
    with stub_server(HttpReply({}, 500)) as stub:
        assert len(try_all(options(stub.url, tmp_path), ["a", "b", "c"])) == 3


def test_a_key_whose_quota_runs_out_keeps_what_was_judged(tmp_path: Path) -> None:
    with stub_server(chat_reply(CORRECT), HttpReply({}, 402)) as stub:
        assert len(try_all(options(stub.url, tmp_path), ["a", "b", "c"])) == 2


def test_the_key_is_read_from_the_named_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_TEST_KEY", "sk-7")
    with stub_server(chat_reply(CORRECT)) as stub:
        run(options(stub.url, tmp_path, key_env="JUDGE_TEST_KEY"), ["a"])
    assert stub.headers[0]["Authorization"] == "Bearer sk-7"


def test_an_unset_variable_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_TEST_KEY", raising=False)
    with pytest.raises(UserError, match="no JUDGE_TEST_KEY"):
        run(options("http://localhost:1/v1", tmp_path, key_env="JUDGE_TEST_KEY"))


def test_settings_override_the_judges_own_and_null_removes_one(tmp_path: Path) -> None:
    settings = ["max_tokens=null", "max_completion_tokens=2000", "reasoning_effort=low"]
    with stub_server(chat_reply(CORRECT)) as stub:
        run(options(stub.url, tmp_path, settings=settings), ["a"])
    sent = {name: stub.asked[0][name] for name in stub.asked[0] if name not in ("model", "messages")}
    assert sent == {"temperature": 0, "max_completion_tokens": 2000, "reasoning_effort": "low"}


def test_a_setting_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="key=value"):
        run(options("http://localhost:1/v1", tmp_path, settings=["max_tokens"]))


@pytest.mark.parametrize(
    "given", [JudgeOptions(), JudgeOptions("http://localhost:1/v1"), JudgeOptions(model="m")]
)
def test_a_judge_needs_server_and_model(given: JudgeOptions) -> None:
    with pytest.raises(UserError, match="--judge-url and --judge-model"):
        run(given)
