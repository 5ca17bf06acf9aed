"""Runner of sections: what was found stays, whatever happens to a section."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import runner
from benchmarks.gpu.results import Results
from benchmarks.gpu.runner import MARK, SectionProcess, run_sections
from benchmarks.gpu.sections import SECTIONS
from benchmarks.gpu.settings import CPU, Settings

START = "import sys, time; print({row!r}, flush=True); print('a library speaks', flush=True); "
ROW = MARK + json.dumps({"seconds": 1.5})


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "out", "")


def replace_section(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a section be a process that prints a row and runs this code."""
    start = runner.subprocess.Popen

    def run(_: list[str], **options: Any) -> Any:
        return start([sys.executable, "-c", START.format(row=ROW) + code], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", run)


def run(results: Results, seconds: float) -> tuple[str, str]:
    section = SectionProcess("update", CPU, results.folder, results.folder)
    return section.run(seconds, results, lambda _: None)


def test_rows_are_recorded_and_other_output_is_logged(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_section("", monkeypatch)
    assert run(results, 60) == ("done", "")
    assert results.rows == {"update": [{"seconds": 1.5}]}
    assert (results.folder / "update.log").read_text() == "a library speaks\n"


def test_a_section_that_fails_keeps_its_rows_and_says_why(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_section(
        "import atexit; atexit.register(print, 'bye'); raise ValueError('no such card')", monkeypatch
    )
    assert run(results, 60) == ("failed", "ValueError: no such card")
    assert results.rows == {"update": [{"seconds": 1.5}]}


def test_a_section_that_is_killed_says_by_which_signal(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_section("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
    assert run(results, 60) == ("failed", "SIGKILL")


def test_a_section_that_hangs_is_ended_with_the_processes_that_it_started(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    child = f"import time; time.sleep(6); open({str(late)!r}, 'w')"
    code = f"import subprocess; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    replace_section(code, monkeypatch)
    started = time.monotonic()
    assert run(results, 4)[0] == "out of time"
    assert time.monotonic() - started < 30
    assert results.rows == {"update": [{"seconds": 1.5}]}
    time.sleep(4)
    assert not late.exists()


@pytest.mark.parametrize("ahead", [False, True])
def test_the_sections_after_a_failed_one_run(
    ahead: bool, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_section("raise ValueError", monkeypatch)
    run_sections(["numerics", "update"], CPU, 60, results, lambda _: None, ahead=ahead)
    assert list(results.rows) == ["numerics", "update"]
    assert all("failed" in outcome for outcome in results.outcomes.values())


def test_the_next_section_imports_its_libraries_while_one_runs_but_does_not_begin(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready, begun = tmp_path / "ready", tmp_path / "begun"
    code = {
        # Ends when the other one is ready, and tells whether it has begun.
        "numerics": f"import pathlib\nwhile not pathlib.Path({str(ready)!r}).exists(): time.sleep(0.05)\n"
        f"time.sleep(0.5); assert not pathlib.Path({str(begun)!r}).exists()",
        "update": f"open({str(ready)!r}, 'w'); sys.stdin.read(); open({str(begun)!r}, 'w')",
    }
    start = runner.subprocess.Popen

    def run(command: list[str], **options: Any) -> Any:
        return start([sys.executable, "-c", "import sys, time\n" + code[command[3]]], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", run)
    run_sections(["numerics", "update"], CPU, 60, results, lambda _: None, ahead=True)
    assert all(outcome.startswith("done") for outcome in results.outcomes.values())
    assert begun.exists()


def test_settings_survive_the_way_to_a_section() -> None:
    assert Settings.from_json(json.loads(json.dumps(vars(CPU)))) == CPU


SMALL = [
    "--prompts", "2", "--completions", "2", "--visual-tokens", "16", "--completion-tokens", "8",
    "--growth-completions", "2", "--growth-tokens", "8", "--quickstart-iterations", "1",
    "--quickstart-rows", "8",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_sections_run_on_a_cpu_with_the_tiny_model(tmp_path: Path) -> None:
    command.main(["--output", str(tmp_path), "--shape", "tiny", *SMALL])
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    outcomes = {line["section"]: line["outcome"] for line in lines if "outcome" in line}
    assert outcomes == dict.fromkeys(SECTIONS, "done")
    rows = [line["row"] for line in lines if "row" in line]
    notes = {row["note"] for row in rows if "note" in row}
    assert notes <= {"not installed: vllm"}
    assert "CPU" in (tmp_path / "results.md").read_text()
    # What only the sections need is removed.
    assert not [one for one in tmp_path.iterdir() if one.is_dir()]


def test_sections_can_be_chosen_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(command, "run_sections", lambda chosen, *_, **options: called.append(chosen))
    command.main(["--output", str(tmp_path), "--only", "update", "growth", "--skip", "growth"])
    command.main(["--output", str(tmp_path), "--skip", "quickstart"])
    assert called == [["update"], [name for name in SECTIONS if name != "quickstart"]]


def test_a_run_that_is_asked_to_stop_ends_its_section(tmp_path: Path) -> None:
    late = tmp_path / "late"
    child = f"import time; print(1, flush=True); time.sleep(8); open({str(late)!r}, 'w')"
    code = (
        "from benchmarks.gpu import __main__ as command, runner\n"
        "start = runner.subprocess.Popen\n"
        f"runner.subprocess.Popen = lambda _, **o: start([runner.sys.executable, '-c', {child!r}], **o)\n"
        f"command.main(['--output', {str(tmp_path / 'out')!r}, '--only', 'update'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=runner.ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("update")
    log = tmp_path / "out" / "update.log"
    while not (log.exists() and log.read_text()):
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    time.sleep(9)
    assert not late.exists()
