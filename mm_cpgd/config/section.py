"""Base class of the config's sections."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Section of the config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True)
