"""The ranges that options of parts share, as types; ``parts`` checks written values against them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

OpenShare = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
AboveOne = Annotated[float, Field(gt=1)]
