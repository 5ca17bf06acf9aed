"""Command line options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

# Which rows to read, and how: as the data section of a config.
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="field=column, for instance answer=solution")
]
Split = Annotated[str | None, typer.Option(help="of a dataset")]
Name = Annotated[str | None, typer.Option(help="configuration of a hub dataset")]
Limit = Annotated[int | None, typer.Option(help="rows to read at most")]
