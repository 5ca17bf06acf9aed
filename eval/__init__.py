"""Evaluation: answers from a model, scored and summed up.

Scoring stored answers needs no torch; what generates them does, and is imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.heldout import HeldOut, summarise

__all__ = ["HeldOut", "summarise"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from eval import heldout

        return getattr(heldout, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
