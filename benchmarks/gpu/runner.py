"""Runner of sections: each in a process of its own, ended when its time is over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from benchmarks.gpu.results import Results
from benchmarks.gpu.sections import limit
from benchmarks.gpu.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
# Of a line on standard output that is a row, and not something that a library prints.
MARK = "row\t"
SHORTEST = 1.0
EXCEPTION = re.compile(r"[\w.]+(Error|Exception|Exit|Interrupt)\b")


def run_sections(
    chosen: Sequence[str],
    settings: Settings,
    seconds: float,
    results: Results,
    say: Callable[[str], None] = print,
) -> None:
    """Run the sections one after the other within ``seconds``; one that fails does not keep the next back."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir=results.folder) as scratch:
        for name in chosen:
            most = max(SHORTEST, limit(name, chosen, end - time.monotonic()))
            say(f"{name}: up to {most:.0f} s")
            started = time.monotonic()
            outcome, reason = run_section(name, settings, Path(scratch), most, results, say)
            results.end(name, outcome, time.monotonic() - started, reason)
            say(f"{name}: {results.outcomes[name]}")


def run_section(
    name: str,
    settings: Settings,
    scratch: Path,
    seconds: float,
    results: Results,
    say: Callable[[str], None] = print,
) -> tuple[str, str]:
    """Run one section; record its rows as it prints them.

    Returns:
        How it ended, and why.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.section", name, json.dumps(vars(settings)), str(scratch)]
    with (results.folder / f"{name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
        overdue = threading.Event()
        timer = threading.Timer(seconds, _end, (process, overdue))
        timer.start()
        try:
            _read(process.stdout, name, results, log, say)
            status = process.wait()
        finally:
            timer.cancel()
            _kill(process)
    if overdue.is_set():
        return "out of time", f"ended at {seconds:.0f} s"
    if status < 0:
        return "failed", signal.Signals(-status).name
    return ("done", "") if status == 0 else ("failed", _reason(results.folder / f"{name}.log"))


def _read(
    lines: IO[str] | None, name: str, results: Results, log: IO[str], say: Callable[[str], None]
) -> None:
    for line in lines or ():
        if line.startswith(MARK):
            row = json.loads(line.removeprefix(MARK))
            results.add(name, row)
            say(f"  {', '.join(f'{key} {value}' for key, value in row.items())}")
        else:
            log.write(line)
            log.flush()


def _environment() -> dict[str, str]:
    """Return the environment of a section: no network, since nothing is downloaded."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    fixed = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    return {**os.environ, **fixed, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _end(process: subprocess.Popen[str], overdue: threading.Event) -> None:
    overdue.set()
    _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """End the section's whole session: the sides of a comparison, and an engine's processes."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reason(log: Path) -> str:
    """Return the last line that names an exception, else the last one: libraries print after it too."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    named = [line for line in lines if EXCEPTION.match(line)]
    return (named or lines or ["it printed no reason"])[-1][:300]
