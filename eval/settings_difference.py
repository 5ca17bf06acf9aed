"""Which settings of two results differ, of those that should not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# What two results are compared for, and where things lay: no reason for a warning.
EXPECTED = (
    "model", "model_id", "revision", "endpoint", "predictions", "predictions_fingerprint", "data", "command",
    "generation", "first_prompt", "protocols",
)  # fmt: skip


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by dotted name, as (a's, b's); None where one has none.

    The names of ``EXPECTED`` and what is below them are left out.
    """
    first, second = dict(_flat(a)), dict(_flat(b))
    names = sorted(first.keys() | second.keys())
    return {
        name: (first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name) and not _expected(name)
    }


def _expected(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in EXPECTED)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
