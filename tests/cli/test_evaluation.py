"""``mm-cpgd eval`` in several processes, and with a judge: one result, equal to that of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.cli.main import main
from tests.fakes.chat_server import HttpReply, chat_reply, stub_server
from tests.fakes.scoring import OWN_BENCHMARK, write_lines

DRAWN = """
from data import load_examples
from eval.benchmark import Benchmark
from rewards import Status, Verdict

def load(source):
    return list(load_examples("generated:all", limit=source.limit, seed=7).examples)

def official(example, response):
    right = float(example.answer in response.text)
    return Verdict(right, Status.CORRECT if right else Status.WRONG, response.text[-5:])

benchmark = Benchmark("drawn", "generated:all", load, lambda row: row.question, official, max_new_tokens=8)
"""
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
Run = Callable[..., str]


def start(folder: Path, *options: str, processes: int = 2) -> subprocess.Popen[bytes]:
    (folder / "drawn.py").write_text(DRAWN)
    given = ["--model", "embedded:tiny", "--benchmark", "drawn.py", "--data", ".", "--dtype", "float32"]
    command = [*LAUNCH[: 4 if processes > 1 else 0], "-m", "mm_cpgd", "eval", *given, *options]
    variables = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *command], cwd=folder, env={**os.environ, **variables}, stdout=log, stderr=log
        )


def finish(process: subprocess.Popen[bytes], folder: Path, status: int = 0) -> str:
    code = process.wait(200)
    text = (folder / "log").read_text(errors="replace")
    assert code == status, text[-3000:]
    return text


@pytest.mark.slow
def test_two_processes_make_the_result_of_one(tmp_path: Path) -> None:
    options = ["--limit", "9", "--samples", "2", "--temperature", "1", "--force-answer", "ours", "--no-cache"]
    options += ["--control", "shuffled", "--seed", "3"]
    for name, processes in (("one", 1), ("two", 2)):
        text = finish(start(tmp_path, *options, "--output", name, processes=processes), tmp_path)
        assert text.count("page: ") == 1
    for name in ("drawn", "drawn-shuffled"):
        one, two = (read(tmp_path / folder / name) for folder in ("one", "two"))
        rows = [(tmp_path / folder / name / "rows.jsonl").read_text() for folder in ("one", "two")]
        assert rows[0] == rows[1]
        assert two["settings"]["generation"]["processes"] == 2
        for summary in (one, two):
            assert summary["settings"].pop("command")
            assert summary["settings"].pop("generation")["answers"] == 18
        assert one == two
    assert one["forced"]["count"] > 0


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_cache_keeps_what_was_done(tmp_path: Path) -> None:
    options = ["--cache", "cache", "--batch", "1", "--output", "out"]
    process = start(tmp_path, "--limit", "100000", *options)
    wait_until(lambda: cached(tmp_path) > 20, process)
    os.kill(worker(process.pid, 1), signal.SIGKILL)
    finish(process, tmp_path, status=1)
    assert not (tmp_path / "out" / "drawn").exists()
    kept = cached(tmp_path)
    again = finish(start(tmp_path, "--limit", "12", *options, processes=1), tmp_path)
    # Both processes had begun with the first questions.
    assert f"12 responses ({min(kept, 12)} from the cache)" in again


@pytest.mark.slow
def test_what_one_process_cannot_use_is_one_message_of_all(tmp_path: Path) -> None:
    text = finish(start(tmp_path, "--limit", "0"), tmp_path, status=1)
    assert text.count("mm-cpgd: --limit 0 must be at least 1") == 1
    assert "Traceback (most" not in text.split("torch/distributed")[0]


def worker(launcher: int, rank: int) -> int:
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not ready():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


def cached(folder: Path) -> int:
    return sum(file.read_bytes().count(b'"key"') for file in (folder / "cache").glob("*.jsonl"))


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run ``mm-cpgd eval`` with a server on six sums; return all that was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("sums.py").write_text(OWN_BENCHMARK)
    rows = [{"id": f"q{i}", "question": f"{i} + 0?", "answer": f"{i} m", "digits": 1} for i in range(6)]
    write_lines(Path("questions.jsonl"), rows)

    def call(*arguments: object, status: int = 0) -> str:
        given = ["--model", "m", "--benchmark", "sums.py", "--data", "questions.jsonl", "--output", "out"]
        given = [] if "--like" in arguments else given
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", "eval", *map(str, [*given, *arguments])])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capfd.readouterr()
        text = printed.out + printed.err
        assert (caught.value.code or 0) == status, text
        assert "Traceback" not in text
        return text

    return call


def priced(verdict: str) -> HttpReply:
    """Return a reply of a judge that reports a million tokens."""
    reply = chat_reply(json.dumps({"verdict": verdict, "reason": "so"}))
    reply.body["usage"] = {"prompt_tokens": 500_000, "completion_tokens": 500_000}
    return reply


def test_a_judge_in_the_same_command_stops_at_its_budget(run: Run) -> None:
    with stub_server() as model, stub_server() as judge:
        model.by_prompt = lambda text: chat_reply(f"It is {text[0]}")
        judge.by_prompt = lambda text: priced("correct")
        asked = ["--endpoint", model.url, "--protocol", "judge,official", "--judge-url", judge.url]
        asked += ["--judge-model", "j", "--judge-price-in", "1", "--judge-price-out", "1"]
        asked += ["--judge-concurrency", "1"]
        text = run(*asked, "--judge-budget", "2.5", status=3)
        # Each reply costs 1, far above the estimate by which the third one still fits.
        assert "judge: 6 requests" in text
        assert "cost 3.00" in text
        assert "out/sums lacks" not in text
        assert "sums lacks 3 judgements" in text
        found = read(Path("out/sums"))
        assert found["overall"]["total"] == 3
        assert found["protocols"]["judge"]["unscored"]["reasons"] == {"not_judged: not asked": 3}
        assert any("the budget of 2.5 is used up (3 spent)" in flag for flag in found["flags"])
        assert found["settings"]["judge"]["budget"] == 2.5
        assert found["settings"]["judge"]["rules"] == {"judge": "general"}
        # What was judged is cached, so that the rest needs no more than its own cost.
        run(*asked, "--judge-budget", "3.5")
        assert read(Path("out/sums"))["overall"]["total"] == 6
        assert len(judge.asked) == 6
        assert len(model.asked) == 6


def test_a_judge_that_is_paid_for_needs_a_budget_or_consent_before_anything_is_generated(run: Run) -> None:
    with stub_server() as model:
        asked = ["--endpoint", model.url, "--protocol", "judge", "--judge-url", "https://far.example/v1"]
        assert "--judge-budget" in run(*asked, "--judge-model", "j", status=2)
        assert "--judge-price-in" in run(*asked, "--judge-model", "j", "--judge-budget", "5", status=2)
        assert "--judge-url and --judge-model" in run(*asked, status=2)
        assert not model.asked


def test_prompt_examples_and_stop_texts_reach_the_server_and_the_result(run: Run, tmp_path: Path) -> None:
    write_lines(
        tmp_path / "shots.jsonl",
        [{"id": f"s{i}", "question": f"{i} + 9?", "answer": str(i + 9), "digits": 1} for i in range(2)],
    )
    with stub_server() as model:
        model.by_prompt = lambda text: chat_reply("It is 0")
        run(
            "--endpoint", model.url, "--limit", "1", "--prompt", "{question} Go.", "--shots", "1",
            "--shots-data", "shots.jsonl", "--stop", "###", "--stop", "Q:", "--repetition-penalty", "1.1",
        )  # fmt: skip
        (body,) = model.asked
        assert (body["stop"], body["repetition_penalty"]) == (["###", "Q:"], 1.1)
        wanted = "Example 1:\n0 + 9? Go.\n\nThe answer is 9.\n\nQuestion:\n0 + 0? Go."
        assert body["messages"][-1]["content"][-1]["text"] == wanted
        settings = read(Path("out/sums"))["settings"]
        expected = {
            "prompt": "{question} Go.", "wording": "template", "shots": 1, "shots_data": "shots.jsonl",
            "first_shots": ["s0"], "stop": ["###", "Q:"], "repetition_penalty": 1.1, "first_prompt": wanted,
        }  # fmt: skip
        assert {name: settings[name] for name in expected} == expected
        run("--like", "out/sums", "--endpoint", model.url, "--output", "again")
        assert len(model.asked) == 1


def test_a_thought_that_was_cut_off_is_continued_by_the_server(run: Run) -> None:
    def reply(text: str) -> HttpReply:
        return chat_reply("0 m}") if "ANSWER" in text else chat_reply("<think>Hm", "length")

    with stub_server() as model:
        model.by_prompt = reply
        run(
            "--endpoint",
            model.url,
            "--limit",
            "1",
            "--force-answer",
            "ANSWER \\boxed{",
            "--force-tokens",
            "9",
        )
        first, second = model.asked
        assert second["messages"][-1] == {
            "role": "assistant", "content": "<think>Hm\n</think>ANSWER \\boxed{",
        }  # fmt: skip
        assert (second["add_generation_prompt"], second["continue_final_message"]) == (False, True)
        assert (first["max_tokens"], second["max_tokens"]) == (16, 9)
        (row,) = [json.loads(line) for line in Path("out/sums/rows.jsonl").read_text().splitlines()]
        assert row["response"] == "<think>Hm\n</think>ANSWER \\boxed{0 m}"
        assert (row["forced"], row["finished"], row["protocols"]["verifier"]["score"]) == (True, False, 1.0)
        assert read(Path("out/sums"))["settings"]["force_text"] == "ANSWER \\boxed{"
