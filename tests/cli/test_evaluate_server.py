"""``mm-cpgd eval`` with servers: questions without a response, settings, several servers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from mm_cpgd.cli.main import main
from tests.fakes.chat_server import HttpReply, chat_reply, stub_server
from tests.fakes.scoring import OWN_BENCHMARK, write_lines

Run = Callable[..., str]
REFUSAL = HttpReply(
    {"choices": [{"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"}]}
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command of ``mm-cpgd`` on four sums; return all that was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("sums.py").write_text(OWN_BENCHMARK)
    rows = [{"id": f"q{i}", "question": f"{i} + 0?", "answer": str(i), "digits": 1} for i in range(4)]
    write_lines(Path("questions.jsonl"), rows)

    def call(command: str, *arguments: object, like: bool = False, status: int = 0) -> str:
        given = [] if like else ["--benchmark", "sums.py", "--data", "questions.jsonl"]
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", command, *map(str, [*given, *arguments])])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capfd.readouterr()
        text = printed.out + printed.err
        assert (caught.value.code or 0) == status, text
        assert "Traceback" not in text
        return text

    return call


def right(text: str) -> HttpReply:
    return chat_reply(f"It is {text[0]}")


def refusing(text: str) -> HttpReply:
    return REFUSAL if text[0] == "2" else right(text)


def read(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
    return found


def test_a_question_without_a_response_is_exit_status_3_and_asked_again_by_the_same_command(run: Run) -> None:
    behave = [refusing]
    with stub_server(by_prompt=lambda text: behave[0](text)) as stub:
        command = "eval", "--model", "m", "--endpoint", stub.url, "--output", "out"
        printed = run(*command, status=3)
        assert (
            "! 1 of 4 responses are not there and have no score: 1 times refused: the model refused"
            in printed
        )
        assert (
            "mm-cpgd: sums lacks 1 responses; run the same command again: it asks only these again" in printed
        )
        assert "3 responses (0 from the cache)" in printed
        assert Path("out/report.html").exists()
        assert read("out/sums")["overall"]["total"] == 3
        behave[0] = right
        assert "4 responses (3 from the cache)" in run(*command)
    assert len(stub.asked) == 5
    assert (read("out/sums")["overall"]["correct"], read("out/sums")["flags"]) == (4, [])


def test_declined_questions_may_count_as_wrong(run: Run) -> None:
    with stub_server(by_prompt=refusing) as stub:
        run("eval", "--model", "m", "--endpoint", stub.url, "--output", "out", "--declined", "wrong")
    assert read("out/sums")["overall"]["correct"] == 3
    assert read("out/sums")["overall"]["total"] == 4


def test_a_run_of_refusals_is_stored_with_their_words(run: Run) -> None:
    with stub_server(REFUSAL) as stub:
        run("eval", "--model", "m", "--endpoint", stub.url, "--output", "out", status=3)
    rows = [json.loads(line) for line in Path("out/sums/rows.jsonl").read_text().splitlines()]
    assert [(row["response"], row["status"], row["score"]) for row in rows] == [
        ("I cannot", "refused", None)
    ] * 4


def test_a_run_in_which_nothing_is_answered_is_an_error(run: Run) -> None:
    with stub_server(HttpReply({"error": "too long"}, 400)) as stub:
        printed = run("eval", "--model", "m", "--endpoint", stub.url, "--output", "out", status=2)
    assert "none of 4 questions could be answered; the first one, q0: no reply from the server" in printed
    assert not Path("out").exists()


def test_settings_reach_the_server_and_are_repeated_by_like(run: Run) -> None:
    settings = ["--setting", "max_completion_tokens=50", "--setting", "temperature=null"]
    with stub_server(by_prompt=right) as stub:
        run("eval", "--model", "m", "--endpoint", stub.url, "--output", "out", *settings)
        run("eval", "--like", "out/sums", "--no-cache", like=True)
        message = run("eval", "--like", "out/sums", "--setting", "a=1", like=True, status=2)
    assert "--setting would change what --like repeats" in message
    assert len(stub.asked) == 8
    for body in stub.asked:
        assert {name: body[name] for name in body if name not in ("messages", "model")} == {
            "max_completion_tokens": 50
        }
    assert read("out/sums")["settings"]["request"] == {"max_completion_tokens": 50, "temperature": None}


def test_a_result_of_a_version_without_these_settings_can_be_repeated(run: Run) -> None:
    with stub_server(by_prompt=right) as stub:
        run("eval", "--model", "m", "--endpoint", stub.url, "--output", "out")
        stored = read("out/sums")["settings"]
        assert not {"request", "top_k", "min_p", "declined"} & stored.keys()
        assert "0 responses changed" in run("eval", "--like", "out/sums", like=True)


@pytest.mark.parametrize("comma", [True, False])
def test_several_servers_share_the_questions(run: Run, comma: bool) -> None:
    asked = Barrier(4)

    def once_all_are_asked(prompt: str) -> HttpReply:
        asked.wait(60)
        return right(prompt)

    with stub_server(by_prompt=once_all_are_asked) as one, stub_server(by_prompt=once_all_are_asked) as two:
        servers = [f"{one.url},{two.url}"] if comma else [one.url, "--endpoint", two.url]
        run("eval", "--model", "m", "--endpoint", *servers, "--output", "out")
    assert (len(one.asked), len(two.asked)) == (2, 2)
    assert read("out/sums")["settings"]["endpoint"] == f"{one.url},{two.url}"


def test_a_server_that_is_left_out_is_named(run: Run) -> None:
    with stub_server(by_prompt=right) as good, stub_server(HttpReply({}, 404)) as bad:
        printed = run("eval", "--model", "m", "--endpoint", f"{bad.url},{good.url}", "--output", "out")
    assert f"mm-cpgd: warning: the server {bad.url} is left out (" in printed
    assert read("out/sums")["overall"]["correct"] == 4


def test_a_judge_that_does_not_reply_is_exit_status_3_and_asked_again(run: Run) -> None:
    write_lines(Path("responses.jsonl"), [{"id": f"q{i}", "response": f"maybe {i}?"} for i in range(4)])
    verdict = chat_reply('{"verdict": "wrong", "reason": "unsure"}')
    with stub_server(verdict, REFUSAL, REFUSAL, verdict, verdict, verdict) as stub:
        command = ["score", "--predictions", "responses.jsonl", "--protocol", "judge", "--output", "out"]
        command += ["--judge-url", stub.url, "--judge-model", "j", "--judge-concurrency", "1"]
        printed = run(*command, status=3)
        assert "the judge gave no usable reply about 1 responses" in printed
        assert "1 times not_judged: the judge refused (first: I cannot)" in printed
        run(*command, "--overwrite")
    assert len(stub.asked) == 6
    assert read("out")["unscored"]["count"] == 0
