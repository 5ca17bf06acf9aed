"""Ranges of options, written into a rule's signature: ``tolerance: NonNegative = 0.0``.

The registry checks what a config gives against them before training starts (``rewards.binding``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True)
class Checked:
    """Any other condition: ``check`` returns the value, or raises ``ValueError`` saying what it must be."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Tell pydantic to check after the type. It is imported only where options are checked."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


Share = Annotated[float, Ge(0), Le(1)]
NonNegative = Annotated[float, Ge(0)]
Above0 = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
