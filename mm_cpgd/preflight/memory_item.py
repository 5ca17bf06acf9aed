"""One item of a plan's memory, in bytes, in each phase of an iteration."""

from __future__ import annotations

from dataclasses import dataclass

# Phases as columns of the plan, and in words.
PHASES = {
    "rollout": "while sampling",
    "update": "in the forward and backward pass of a micro-batch",
    "step": "at the end of the backward pass and in the optimizer step",
}


@dataclass(frozen=True)
class MemoryItem:
    """Bytes of one item.

    Attributes:
        name: of what.
        rollout: while sampling.
        update: in the forward and backward pass, at its peak.
        step: when the last gradients are summed and the optimizer steps.
        how: how they are computed.
    """

    name: str
    rollout: int = 0
    update: int = 0
    step: int = 0
    how: str = ""

    @property
    def peak(self) -> int:
        """The largest of the phases."""
        return max(self.rollout, self.update, self.step)

    @property
    def peak_phase(self) -> str:
        """Name of the phase with the largest."""
        return max(PHASES, key=lambda phase: getattr(self, phase))


def always(name: str, count: int, how: str) -> MemoryItem:
    """Return an item that is there in all phases."""
    return MemoryItem(name, count, count, count, how)
