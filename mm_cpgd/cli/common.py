"""Options that several commands share: which rows to read."""

from __future__ import annotations

from typing import Annotated

import typer

# As in the data section of a config.
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="field=column, for instance answer=solution")
]
Split = Annotated[str | None, typer.Option(help="split of the dataset")]
Name = Annotated[str | None, typer.Option(help="configuration of a hub dataset")]
Limit = Annotated[int | None, typer.Option(help="maximum number of rows, taken from the start")]
