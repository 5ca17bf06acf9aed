"""Runner of sections: each in a process of its own, ended when its time is over."""

from __future__ import annotations

import contextlib
import functools
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
    *,
    ahead: bool = False,
) -> None:
    """Run the sections one after the other within ``seconds``; one that fails does not keep the next back.

    With ``ahead``, the next section's process imports its libraries while a section runs: for a machine with
    more CPU cores than a section uses.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir=results.folder) as scratch, contextlib.ExitStack() as started:
        begin = functools.partial(_start, started, settings, Path(scratch), results)
        following: SectionProcess | None = None
        for number, name in enumerate(chosen):
            section = following or begin(name)
            later = chosen[number + 1 : number + 2] if ahead else ()
            following = next(map(begin, later), None)
            most = max(SHORTEST, limit(name, chosen, end - time.monotonic()))
            say(f"{name}: up to {most:.0f} s")
            began = time.monotonic()
            outcome, reason = section.run(most, results, say)
            results.end(name, outcome, time.monotonic() - began, reason)
            say(f"{name}: {results.outcomes[name]}")


def _start(
    started: contextlib.ExitStack, settings: Settings, scratch: Path, results: Results, name: str
) -> SectionProcess:
    """Start a section's process, which is ended with the block that ``started`` belongs to."""
    section = SectionProcess(name, settings, scratch, results.folder)
    started.callback(section.kill)
    return section


class SectionProcess:
    """Process of one section, in a session of its own; it imports its libraries, and waits for ``run``."""

    def __init__(self, name: str, settings: Settings, scratch: Path, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        command = [
            sys.executable, "-m", "benchmarks.gpu.section", name, json.dumps(vars(settings)), str(scratch),
        ]  # fmt: skip
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, start_new_session=True,
            )  # fmt: skip

    def run(self, seconds: float, results: Results, say: Callable[[str], None] = print) -> tuple[str, str]:
        """Let the section begin; record its rows as it prints them; end it after ``seconds``.

        Returns:
            How it ended, and why.
        """
        overdue = threading.Event()
        timer = threading.Timer(seconds, lambda: (overdue.set(), self.kill()))
        timer.start()
        try:
            if self.process.stdin is not None:
                with contextlib.suppress(OSError):  # it has ended already; its status says why
                    self.process.stdin.close()
            with self.log.open("a", encoding="utf-8") as log:
                _read(self.process.stdout, self.name, results, log, say)
            status = self.process.wait()
        finally:
            timer.cancel()
            self.kill()
        if overdue.is_set():
            return "out of time", f"ended at {seconds:.0f} s"
        if status < 0:
            return "failed", signal.Signals(-status).name
        return ("done", "") if status == 0 else ("failed", _reason(self.log))

    def kill(self) -> None:
        """End the section's whole session: the sides of a comparison, and an engine's processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


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


def _reason(log: Path) -> str:
    """Return the last line that names an exception, else the last one: libraries print after it too."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    named = [line for line in lines if EXCEPTION.match(line)]
    return (named or lines or ["it printed no reason"])[-1][:300]
