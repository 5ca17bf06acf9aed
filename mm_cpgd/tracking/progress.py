"""Progress on the screen: a live line in a terminal or plain lines at intervals; a bar for slow work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import Progress as ProgressBars
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_SHOWN = (
    ("reward", "reward/mean", "{:.3f}"),
    ("accuracy", "accuracy/train", "{:.1%}"),
    ("loss", "sft/loss", "{:.3f}"),
    ("drift", "policy/drift", "{:.2g}"),
    ("tokens/s", "tokens/per_second", "{:,.0f}"),
)

BAR_AFTER = 2.0
"""Seconds after which ``slow_bar`` shows its bar."""
Report = Callable[[int, int], None]
"""Takes (done, total)."""


class Progress:
    """Progress of a run: iteration, reward, accuracy, drift, tokens per second and the time left.

    Args:
        total: iterations of the whole run.
        done: iterations finished before a resume; the time left is not estimated from them.
        console: standard error by default, so that results on standard output can be piped.
        enabled: False shows nothing (all processes except the main one).
        plain_seconds: least time between plain lines where there is no terminal.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        console: Console | None = None,
        enabled: bool = True,
        plain_seconds: float = 5.0,
    ) -> None:
        self.total = total
        self.iteration = self._start_iteration = done
        self.console = console or Console(stderr=True)
        self.enabled = enabled
        self.plain_seconds = plain_seconds
        self._metrics: Mapping[str, Any] = {}
        self._stage = ""
        self._started = time.monotonic()
        self._printed_at = -plain_seconds
        self._printed_line = ""
        live = enabled and self.console.is_terminal
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if live else None

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self.console.print(Text(self.line()))
        elif self.enabled and self._metrics:
            self._print()

    def update(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Show a finished iteration and its metrics (keys as in ``metrics.jsonl``)."""
        self.iteration, self._metrics, self._stage = iteration, metrics, ""
        self._show()

    def set_stage(self, text: str) -> None:
        """Show what the current iteration is doing, for instance ``rollout 3/8``; only in a terminal."""
        self._stage = text
        if self._live:
            self._show()

    def print_message(self, text: str) -> None:
        """Print a message above the live line."""
        if self.enabled:
            self.console.print(Text(text))

    def line(self) -> str:
        """Return the state as one line of text."""
        fields = [f"iteration {self.iteration}/{self.total}", *self._numbers()]
        left = self.seconds_left()
        if left is not None and self.iteration < self.total:
            fields.append(f"{_duration(left)} left")
        if self._stage:
            fields.append(self._stage)
        return "  ".join(fields)

    def seconds_left(self) -> float | None:
        """Return an estimate from the mean time of this process's iterations, None before the first."""
        count = self.iteration - self._start_iteration
        if count <= 0:
            return None
        return (time.monotonic() - self._started) / count * (self.total - self.iteration)

    def _numbers(self) -> list[str]:
        values = ((label, self._metrics.get(key), form) for label, key, form in _SHOWN)
        return [f"{label} {form.format(value)}" for label, value, form in values if value is not None]

    def _show(self) -> None:
        if self._live:
            self._live.update(self._bar(), refresh=True)
        elif self.enabled:
            seconds = time.monotonic() - self._started
            if seconds - self._printed_at >= self.plain_seconds:
                self._print()
                self._printed_at = seconds

    def _print(self) -> None:
        line = self.line()
        if line != self._printed_line:
            self.console.print(Text(line), soft_wrap=True)
            self._printed_line = line

    def _bar(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_row(ProgressBar(total=self.total, completed=self.iteration, width=20), Text(self.line()))
        return table


@contextmanager
def slow_bar(console: Console, title: str) -> Iterator[Report]:
    """Yield a function that takes (done, total); a bar appears once two seconds have passed."""
    started = time.monotonic()
    # Standard error, not console: the bar is not part of what the command prints.
    screen = Console(stderr=True, quiet=console.quiet)
    with ProgressBars(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(title, total=None, visible=False)

        def report(done: int, total: int) -> None:
            late = time.monotonic() - started > BAR_AFTER
            bar.update(task, completed=done, total=total, visible=late)

        yield report


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
