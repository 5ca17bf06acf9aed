"""States and memories of an objective's parts, as they are when a run begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mm_cpgd.algorithms.inputs.memory import Memory
from mm_cpgd.algorithms.parts import Part, options_for
from mm_cpgd.algorithms.regularizers import State
from mm_cpgd.errors import UserError


def initial_states(parts: Sequence[Part]) -> dict[str, State]:
    """Create the states of the parts that have one."""
    factories = [(part, part.description.state) for part in parts]
    return {part.where: make(**options_for(make, part.options)) for part, make in factories if make}


def initial_memories(parts: Sequence[Part]) -> dict[str, Memory]:
    """Create the memories of the parts, each with the options of all parts that share it.

    Raises:
        UserError: two parts give it different values of an option.
    """
    found: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}
    for part in parts:
        factory = part.description.memory
        if factory is None:
            continue
        options = found.setdefault(factory.__name__, (factory, {}))[1]
        for key, value in options_for(factory, part.options).items():
            if options.setdefault(key, value) != value:
                raise UserError(
                    f"{part.where}: {key} = {value!r} is {options[key]!r} in another part that shares its "
                    "memory; write the same value in both."
                )
    return {name: factory(**options) for name, (factory, options) in found.items()}
