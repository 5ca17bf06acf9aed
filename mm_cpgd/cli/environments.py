"""``mm-cpgd environments``: list, show and try environments and tools. Does not load torch."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mm_cpgd.cli.common import Columns, Name, Split
from mm_cpgd.errors import USER_ERRORS, UserError

environments_app = typer.Typer(no_args_is_help=True, help="List, show and try environments and their tools.")

# A turn of this form, with a tool's name, stands for a call.
_CALL = re.compile(r"(\w+)\s*(\{.*\})", re.DOTALL)


@environments_app.command("list")
def list_command() -> None:
    """List environments, tools and scores of conversations.

    Example: `mm-cpgd environments list`
    """
    from mm_cpgd.environments import list_environments
    from mm_cpgd.environments.scores import SCORES
    from mm_cpgd.environments.tools import TOOLS

    table = Table("kind", "name", "what it does")
    for name, text in list_environments().items():
        table.add_row("environment", Text(name), Text(text))
    for tool in TOOLS.values():
        table.add_row("tool", Text(tool.name), Text(tool.signature.description))
    for name, function in SCORES.items():
        table.add_row("score", Text(name), Text(_summary(function)))
    Console().print(table)


@environments_app.command("show")
def show_command(
    name: Annotated[
        str, typer.Argument(help="an environment, a tool or a score (environments list), or file.py:name")
    ],
) -> None:
    """Show a tool as the model is told about it, or the options of an environment or a score.

    Example: `mm-cpgd environments show zoom`
    """
    from mm_cpgd.environments import Tool, View, registry, tools
    from mm_cpgd.environments.scores import SCORES

    console = Console()
    known = {**registry.builtin(), **SCORES, **tools.TOOLS}
    _, found = registry.find_named("environment, tool or score", name, known, registry.GROUP)
    if not isinstance(found, Tool):
        first = next(iter(inspect.signature(found).parameters), None) if callable(found) else None
        if first in ("seed", "progress"):
            console.print(Text(_documentation(found)))
            return
    tool = tools.as_tool(found)
    console.print_json(json.dumps(tool.schema(View())))
    if tool.signature.hidden:
        console.print(Text(f"given by the environment: {', '.join(tool.signature.hidden)}"))


@environments_app.command("try")
def try_command(
    environment: Annotated[str, typer.Argument(help="an environment's name, or path/to/file.py:name")],
    path: Annotated[str, typer.Argument(help="a file, folder or hub name, or generated:detail")],
    turns: Annotated[
        list[str] | None,
        typer.Option("--turn", help='text of a turn, or NAME {"argument": value} for a tool call'),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", help="key=value of the environment, may be repeated")
    ] = None,
    row: Annotated[int, typer.Option(min=1, help="the row, counted from 1")] = 1,
    seed: Annotated[int, typer.Option(help="seed of the environment, and of generated rows")] = 0,
    columns: Columns = None,
    split: Split = None,
    name: Name = None,
    save: Annotated[Path | None, typer.Option(help="folder for the images, as image-1.png …")] = None,
) -> None:
    """Play a conversation with written turns: the prompt, and what the environment replies to each.

    Example: `mm-cpgd environments try tools generated:detail --option 'tools=[zoom]' --turn 'zoom {"box":
    [0, 0, 500, 500]}' --turn '<answer>circle</answer>'`
    """
    from data import load_examples
    from mm_cpgd.cli.common import parse_options
    from mm_cpgd.environments import get_environment
    from mm_cpgd.preflight.data import column_mapping

    made = get_environment(environment, parse_options(options or []))(seed)
    rows = load_examples(
        path,
        columns=column_mapping(columns or []),
        split=split,
        name=name,
        limit=1,
        offset=row - 1,
        seed=seed,
    )
    shown = _Shown(Console(), save)
    with _its_errors_in_one_line(environment):
        prompt = made.reset(rows.examples[0])
    for message in prompt:
        shown.message(message)
    tools = getattr(made.environment, "tools", {})
    for turn in turns or []:
        completion = _completion(turn, tools, getattr(made.environment, "call_format", "json"))
        shown.text("policy", completion)
        with _its_errors_in_one_line(environment):
            observation = made.step(completion)
        for message in observation.messages:
            shown.message(message)
        shown.observation(observation)
        if observation.done:
            break


@contextmanager
def _its_errors_in_one_line(environment: str) -> Iterator[None]:
    """Tell what the environment raises, and where, without the traceback of this command."""
    from mm_cpgd.environments.checks import place_of

    try:
        yield
    except USER_ERRORS:
        raise
    except Exception as error:
        raise UserError(
            f"environment {environment!r} raised {type(error).__name__}: {error}{place_of(error)}; in a run "
            "that costs the completion its score"
        ) from error


def _completion(turn: str, tools: Any, call_format: Any) -> str:
    from mm_cpgd.environments.call_formats import read_json, write_call

    match = _CALL.fullmatch(turn.strip())
    if match is None or match[1] not in tools:
        return turn
    try:
        return write_call(match[1], read_json(match[2]), call_format)
    except ValueError as error:
        raise UserError(f"--turn {turn!r}: the arguments are not JSON: {error}") from None


class _Shown:
    """Prints a conversation and stores its images."""

    def __init__(self, console: Console, folder: Path | None) -> None:
        self.console = console
        self.folder = folder
        self._images = 0

    def text(self, who: str, text: str) -> None:
        self.console.print(f"[bold]{escape(who)}[/]")
        self.console.print(Text(text), soft_wrap=True)

    def message(self, message: Any) -> None:
        self.text(message.role, "".join(map(self._piece, message.content)))

    def _piece(self, piece: Any) -> str:
        from data import VideoRef

        if isinstance(piece, VideoRef):
            timeline = piece.timeline()
            return f"[video: {timeline.duration:g} s, {timeline.width} × {timeline.height}, {piece.origin}]"
        return piece if isinstance(piece, str) else self._image(piece)

    def _image(self, image: Any) -> str:
        self._images += 1
        opened = image.open()
        told = f"[image {self._images}: {opened.width} × {opened.height}, {image.origin}]"
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                opened.save(self.folder / f"image-{self._images}.png")
            except OSError as error:
                raise UserError(f"{self.folder} cannot be written: {error}; name another --save") from error
        return told

    def observation(self, observation: Any) -> None:
        scores = [f"{name} {_number(score)}" for name, score in observation.scores.items()]
        counts = [f"{name} {count}" for name, count in observation.counts.items() if count]
        end = "done: " if observation.done else ""
        self.console.print(Text("; ".join([end + observation.reason, *scores, *counts])), style="dim")


def _number(score: Any) -> str:
    value = getattr(score, "score", score)
    return "none" if value is None else f"{value + 0.0:g}"  # never -0


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _documentation(function: Any) -> str:
    signature = inspect.signature(function)
    lines: Sequence[str] = [
        f"  {one.name}" + ("" if one.default is one.empty else f" = {one.default!r}")
        for one in list(signature.parameters.values())[1:]
    ]
    options = "\n".join(lines) or "  none"
    return f"{inspect.getdoc(function) or ''}\n\noptions:\n{options}"
