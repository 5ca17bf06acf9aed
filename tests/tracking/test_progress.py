"""Progress on the screen, in a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mm_cpgd.tracking import Progress

METRICS = {"reward/mean": 0.6251, "accuracy/train": 0.5, "policy/drift": 0.00123, "tokens/per_second": 1234.5}


def shown(**options: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=200, **options), stream  # type: ignore[arg-type]


def test_without_a_terminal_progress_is_a_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr("time.monotonic", lambda: seconds)
    console, stream = shown()
    with Progress(10, console=console, plain_seconds=5) as progress:
        for iteration in range(1, 9):
            seconds = iteration * 2.0
            progress.update(iteration, METRICS)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"iteration {n}/10" for n in (1, 4, 7, 8)]
    assert lines[1] == (
        "iteration 4/10  reward 0.625  accuracy 50.0%  drift 0.0012  tokens/s 1,234  0:12 left"
    )


def test_iterations_before_a_resume_do_not_count_for_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr("time.monotonic", lambda: seconds)
    with Progress(100, done=90, enabled=False) as progress:
        assert progress.seconds_left() is None
        seconds = 30.0
        progress.update(93, {})
        assert progress.seconds_left() == pytest.approx(70.0)


def test_other_processes_show_nothing() -> None:
    console, stream = shown(force_terminal=True)
    with Progress(10, console=console, enabled=False) as progress:
        progress.update(1, METRICS)
        progress.set_stage("rollout")
        progress.print_message("hello")
    assert stream.getvalue() == ""


def test_in_a_terminal_the_stage_and_the_messages_are_shown() -> None:
    console, stream = shown(force_terminal=True)
    with Progress(10, console=console) as progress:
        progress.update(1, METRICS)
        progress.set_stage("rollout 3/8")
        progress.print_message("checkpoint [bold]saved")
    text = stream.getvalue()
    assert "rollout 3/8" in text
    assert "checkpoint [bold]saved" in text
