"""Options that several commands share: which rows to read, and the LLM judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Which rows to read, and how: as the data section of a config.
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="field=column, for instance answer=solution")
]
Split = Annotated[str | None, typer.Option(help="of a dataset")]
Name = Annotated[str | None, typer.Option(help="configuration of a hub dataset")]
Limit = Annotated[int | None, typer.Option(help="rows to read at most")]


_PANEL = "Judge"

JudgeUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible server, such as http://localhost:8000/v1", rich_help_panel=_PANEL),
]
JudgeModel = Annotated[str | None, typer.Option(help="name the server knows it by", rich_help_panel=_PANEL)]
JudgeKeyEnv = Annotated[
    str | None, typer.Option(help="environment variable that holds the server's key", rich_help_panel=_PANEL)
]
JudgePerMinute = Annotated[
    float | None, typer.Option(help="requests a minute, at most", rich_help_panel=_PANEL)
]
JudgeConcurrency = Annotated[
    int, typer.Option(min=1, help="requests at the same time, at most", rich_help_panel=_PANEL)
]
JudgeTimeout = Annotated[float, typer.Option(help="seconds to wait for a reply", rich_help_panel=_PANEL)]
JudgeRetries = Annotated[
    int, typer.Option(min=0, help="further attempts at a request that failed", rich_help_panel=_PANEL)
]
JudgeSetting = Annotated[
    list[str] | None,
    typer.Option(
        help="sampling key=value, such as max_tokens=2000; a value of null leaves the key out; repeatable",
        rich_help_panel=_PANEL,
    ),
]
JudgePriceIn = Annotated[
    float | None, typer.Option(min=0, help="of a million prompt tokens", rich_help_panel=_PANEL)
]
JudgePriceOut = Annotated[
    float | None, typer.Option(min=0, help="of a million completion tokens", rich_help_panel=_PANEL)
]
JudgeCache = Annotated[
    Path | None,
    typer.Option(help="file of known replies; default: in the user's cache", rich_help_panel=_PANEL),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="ask the judge without confirmation", rich_help_panel=_PANEL)
]
